package virtio.tck;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Map operations that put every buffer somewhere else, coherent memory included when it is mapped:
 * where a driver forgets a sync or an unmap, or names the wrong direction, its data is wrong.
 *
 * <p>What is unmapped is overwritten at once, so that a device that looks late sees {@link #STALE}.
 * A broken promise of the caller is kept as a sentence and otherwise ignored. Thread-safe.
 */
public final class CopyingMapOps implements MapOps {
    /** What stands where something was unmapped. */
    public static final byte STALE = (byte) 0xdb;

    private static final long HANDLE_BASE = 0x5000_0000_0000L;
    private static final long PAGE_BYTES = 4096;

    private record Mapped(
            CoherentMemory at,
            long handle,
            MemorySegment page,
            long offset,
            long size,
            Direction direction) {}

    private final MemorySegment memory;
    private final RegionPool pool;
    private final long maxMappingSize;
    private final MapToken token = new MapToken() {};
    private final TreeMap<Long, Mapped> mappings = new TreeMap<>();
    private final TreeMap<Long, CoherentMemory> allocations = new TreeMap<>();
    private final List<String> violations = new ArrayList<>();
    private int skewBytes;

    /**
     * With memory for a device.
     *
     * @param sizeBytes of the device's memory, a multiple of 4096; each mapping takes whole pages
     */
    public CopyingMapOps(long sizeBytes) {
        this(sizeBytes, sizeBytes);
    }

    /** As {@link #CopyingMapOps(long)}, with a limit to one mapping. */
    public CopyingMapOps(long sizeBytes, long maxMappingSize) {
        memory = Arena.ofAuto().allocate(sizeBytes + PAGE_BYTES, PAGE_BYTES);
        pool = new RegionPool(memory, HANDLE_BASE, PAGE_BYTES);
        this.maxMappingSize = maxMappingSize;
    }

    /** The one token these operations know. */
    public MapToken token() {
        return token;
    }

    /** Mappings and allocations that were not given back yet. */
    public synchronized int live() {
        return mappings.size() + allocations.size();
    }

    /** Promises that were broken, in their order; empty when all is well. */
    public synchronized List<String> violations() {
        return List.copyOf(violations);
    }

    /**
     * The device's view.
     *
     * @throws IndexOutOfBoundsException when the range is not within one mapping or allocation
     */
    public synchronized MemorySegment device(long mapHandle, long size) {
        Mapped mapped = mapping(mapHandle, size);
        CoherentMemory coherent = value(allocations.floorEntry(mapHandle));
        boolean allocated =
                coherent != null
                        && size >= 0
                        && mapHandle - coherent.mapHandle() <= coherent.segment().byteSize() - size;
        if (mapped == null && !allocated) {
            throw new IndexOutOfBoundsException(
                    "%d bytes at %#x are not mapped".formatted(size, mapHandle));
        }
        return memory.asSlice(mapHandle - HANDLE_BASE, size);
    }

    private static <T> T value(Map.Entry<Long, T> entry) {
        return entry == null ? null : entry.getValue();
    }

    /** The mapping that has all of the range, or null. */
    private Mapped mapping(long mapHandle, long size) {
        Mapped mapped = value(mappings.floorEntry(mapHandle));
        return mapped != null && size >= 0 && mapHandle - mapped.handle() <= mapped.size() - size
                ? mapped
                : null;
    }

    private void violated(String format, Object... values) {
        violations.add(format.formatted(values));
    }

    private void check(MapToken given) {
        if (given != token) {
            violated("token %s is not of these operations", given);
        }
    }

    @Override
    public synchronized long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        check(token);
        if (size < 1 || size > maxMappingSize) {
            throw new IllegalArgumentException(
                    "mapping of %d bytes, limits are 1 and %d".formatted(size, maxMappingSize));
        }
        MemorySegment part = page.asSlice(offset, size);
        // Not at the start of a page, and elsewhere in it each time.
        skewBytes = (skewBytes + 24) % 2048;
        CoherentMemory at = pool.alloc(size + skewBytes);
        if (at == null) {
            return MAPPING_ERROR;
        }
        long handle = at.mapHandle() + skewBytes;
        if (direction.toDevice() && (attrs & SKIP_CPU_SYNC) == 0) {
            at.segment().asSlice(skewBytes).copyFrom(part);
        }
        mappings.put(handle, new Mapped(at, handle, page, offset, size, direction));
        return handle;
    }

    @Override
    public synchronized void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        check(token);
        Mapped mapped = mappings.get(mapHandle);
        if (mapped == null) {
            violated("unmap of %#x, which is not mapped", mapHandle);
            return;
        }
        if (mapped.size() != size || mapped.direction() != direction) {
            violated(
                    "unmap of %#x as %d bytes %s, which is mapped as %d bytes %s",
                    mapHandle, size, direction, mapped.size(), mapped.direction());
        }
        if (mapped.direction().fromDevice() && (attrs & SKIP_CPU_SYNC) == 0) {
            try {
                copyToDriver(mapped, mapHandle, mapped.size());
            } catch (IllegalStateException | WrongThreadException e) {
                // Closed meanwhile, or another thread's: it is lost.
            }
        }
        mappings.remove(mapHandle);
        mapped.at().segment().fill(STALE);
        pool.free(mapped.at());
    }

    private void copyToDriver(Mapped mapped, long mapHandle, long size) {
        MemorySegment.copy(
                memory,
                mapHandle - HANDLE_BASE,
                mapped.page(),
                mapped.offset() + mapHandle - mapped.handle(),
                size);
    }

    @Override
    public synchronized void syncSingleForCpu(
            MapToken token, long mapHandle, long size, Direction direction) {
        Mapped mapped = synced("syncSingleForCpu", token, mapHandle, size, direction);
        if (mapped != null && mapped.direction().fromDevice()) {
            copyToDriver(mapped, mapHandle, size);
        }
    }

    @Override
    public synchronized void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        Mapped mapped = synced("syncSingleForDevice", token, mapHandle, size, direction);
        if (mapped != null && mapped.direction().toDevice()) {
            MemorySegment.copy(
                    mapped.page(),
                    mapped.offset() + mapHandle - mapped.handle(),
                    memory,
                    mapHandle - HANDLE_BASE,
                    size);
        }
    }

    private Mapped synced(
            String what, MapToken given, long mapHandle, long size, Direction direction) {
        check(given);
        Mapped mapped = mapping(mapHandle, size);
        if (mapped == null) {
            violated("%s of %d bytes at %#x, which are not mapped", what, size, mapHandle);
        } else if (mapped.direction() != direction) {
            violated(
                    "%s of %#x as %s, which is mapped as %s",
                    what, mapHandle, direction, mapped.direction());
        }
        return mapped;
    }

    @Override
    public synchronized CoherentMemory alloc(MapToken token, long size) {
        check(token);
        CoherentMemory allocated = pool.alloc(size);
        if (allocated != null) {
            allocations.put(allocated.mapHandle(), allocated);
        }
        return allocated;
    }

    @Override
    public synchronized void free(MapToken token, CoherentMemory memory) {
        check(token);
        CoherentMemory allocated = allocations.remove(memory.mapHandle());
        if (allocated == null) {
            violated("free of %#x, which is not allocated", memory.mapHandle());
            return;
        }
        allocated.segment().fill(STALE);
        pool.free(allocated);
    }

    @Override
    public synchronized boolean needSync(MapToken token, long mapHandle) {
        check(token);
        if (mapping(mapHandle, 1) == null) {
            violated("needSync of %#x, which is not mapped", mapHandle);
        }
        return true;
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return maxMappingSize;
    }
}
