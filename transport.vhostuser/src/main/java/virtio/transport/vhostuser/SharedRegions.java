package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;

/**
 * The memory that one device sees: regions of shared memory, in which a handle is the address in
 * this process.
 *
 * <pre>
 * region 0: | bounce slots | coherent memory |     made at the beginning
 * region n: | 1 page       | coherent memory |     made when what is there is full
 * </pre>
 *
 * <p>Thread-safe. Regions outlive the device: each is unmapped when the device is closed and the
 * last thing that was mapped or allocated in it is given back.
 */
final class SharedRegions implements MapToken {
    /** Shows regions to the device; on failure none of the new ones counts as shown. */
    interface Sharer {
        void share(List<SharedMemory> all, int from) throws VirtioException;
    }

    private record Region(SharedMemory memory, RegionPool pool, long start, long end) {}

    /** Grown regions bounce nothing, but their pool wants a slot. */
    private static final long NO_BOUNCE_BYTES = 4096;

    private final String name;
    private final long regionBytes;
    private final long pageBytes;
    private final int maxRegions;
    private final Sharer sharer;

    /** Replaced, never changed; the first one is where bouncing is done. */
    private volatile Region[] regions;

    private volatile boolean closed;
    private boolean shared;

    /**
     * With a first region.
     *
     * @param name for people, as {@code vhost-user:/tmp/x.sock}
     * @param regionBytes of a region, a multiple of {@code pageBytes}; a quarter is for bouncing
     * @param pageBytes of the pages behind it
     * @throws LinuxException when there is no memory, or no huge pages
     */
    SharedRegions(String name, long regionBytes, long pageBytes, int maxRegions, Sharer sharer)
            throws LinuxException {
        this.name = name;
        this.regionBytes = regionBytes;
        this.pageBytes = pageBytes;
        this.maxRegions = maxRegions;
        this.sharer = sharer;
        this.regions = new Region[] {region(regionBytes, regionBytes / 4)};
    }

    private Region region(long bytes, long bounceBytes) throws LinuxException {
        SharedMemory memory = SharedMemory.create("virtio", bytes, pageBytes);
        MemorySegment segment = memory.segment();
        long start = segment.address();
        return new Region(
                memory, new RegionPool(segment, start, bounceBytes), start, start + bytes);
    }

    /** Shows the device what there is, and from now on what is added. */
    synchronized void share() throws VirtioException {
        if (!shared) {
            sharer.share(memories(regions), 0);
            shared = true;
        }
    }

    /** The device has forgotten what it was shown, or takes it anew. */
    synchronized void unshare() {
        shared = false;
    }

    private static List<SharedMemory> memories(Region[] regions) {
        return Arrays.stream(regions).map(Region::memory).toList();
    }

    long map(MemorySegment page, long offset, long size, Direction direction, long attrs) {
        if (closed) {
            return MapOps.MAPPING_ERROR;
        }
        Region[] all = regions;
        if (page.isNative() && size > 0) {
            long at = page.address() + offset;
            for (Region region : all) {
                if (at >= region.start && at <= region.end - size) {
                    return at;
                }
            }
        }
        return all[0].pool.map(page, offset, size, direction, attrs);
    }

    void unmap(long mapHandle, long size, Direction direction, long attrs) {
        Region first = regions[0];
        if (first.pool.contains(mapHandle)) {
            first.pool.unmap(mapHandle, size, direction, attrs);
            if (closed) {
                release(first);
            }
        }
    }

    void syncForCpu(long mapHandle, long size, Direction direction) {
        Region first = regions[0];
        if (first.pool.contains(mapHandle)) {
            first.pool.syncForCpu(mapHandle, size, direction);
        }
    }

    void syncForDevice(long mapHandle, long size, Direction direction) {
        Region first = regions[0];
        if (first.pool.contains(mapHandle)) {
            first.pool.syncForDevice(mapHandle, size, direction);
        }
    }

    boolean needSync(long mapHandle) {
        Region first = regions[0];
        return first.pool.contains(mapHandle) && first.pool.needSync(mapHandle);
    }

    long maxMappingSize() {
        return regions[0].pool.maxMappingSize();
    }

    synchronized CoherentMemory alloc(long size) {
        if (closed) {
            return null;
        }
        for (Region region : regions) {
            CoherentMemory memory = region.pool.alloc(size);
            if (memory != null) {
                return memory;
            }
        }
        Region grown = grow(size);
        return grown == null ? null : grown.pool.alloc(size);
    }

    private Region grow(long size) {
        Region[] before = regions;
        if (before.length >= maxRegions || size > Long.MAX_VALUE / 2) {
            return null;
        }
        long needed = size + 2 * NO_BOUNCE_BYTES + pageBytes - 1;
        Region region;
        try {
            region = region(Math.max(regionBytes, needed - needed % pageBytes), NO_BOUNCE_BYTES);
        } catch (LinuxException e) {
            return null;
        }
        Region[] after = Arrays.copyOf(before, before.length + 1);
        after[before.length] = region;
        if (shared) {
            try {
                sharer.share(memories(after), before.length);
            } catch (VirtioException e) {
                region.memory.close();
                return null;
            }
        }
        regions = after;
        return region;
    }

    /**
     * Gives memory back.
     *
     * @throws IllegalArgumentException when it is not from here or was given back before
     */
    void free(CoherentMemory memory) {
        for (Region region : regions) {
            if (region.pool.contains(memory.mapHandle())) {
                region.pool.free(memory);
                if (closed) {
                    release(region);
                }
                return;
            }
        }
        throw new IllegalArgumentException(
                "free of handle %#x, which is not of %s".formatted(memory.mapHandle(), name));
    }

    /** Mappings and allocations not given back yet. */
    int live() {
        return Arrays.stream(regions).mapToInt(region -> region.pool.live()).sum();
    }

    /** The device is gone: nothing new is mapped; what is live stays usable until given back. */
    void close() {
        closed = true;
        for (Region region : regions) {
            release(region);
        }
    }

    private synchronized void release(Region region) {
        if (region.pool.live() == 0) {
            region.memory.close();
        }
    }

    @Override
    public String toString() {
        return name;
    }
}
