package virtio.api.map;

import java.lang.foreign.MemorySegment;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

/**
 * Coherent memory and bounce slots inside one region that the device sees; a ready-made part for
 * {@link MapOps} of any transport that shares regions.
 *
 * <pre>
 * handleBase                                           handleBase + region.byteSize()
 * | bounce slots (bounceBytes) | coherent memory, allocated by pages |
 * </pre>
 *
 * <p>A segment that lies in the region is mapped where it is, any other one is bounced, heap arrays
 * included. Thread-safe; mapping takes no lock and allocates nothing, {@link #alloc} and {@link
 * #free} lock.
 */
public final class RegionPool {
    private static final long PAGE_BYTES = 4096;

    /** One in so many bytes is for bounce slots where nobody says how many. */
    private static final int BOUNCE_SHARE = 4;

    private final MemorySegment region;
    private final long address;
    private final long bytes;
    private final long handleBase;
    private final long bounceBytes;
    private final BouncePool bounce;

    /** Free coherent memory: length by offset, neighbours always joined. */
    private final TreeMap<Long, Long> free = new TreeMap<>();

    /** Handed out: length by offset. */
    private final Map<Long, Long> allocated = new HashMap<>();

    /**
     * Divides a region: a quarter of it is for bounce slots, at most 2 GiB.
     *
     * @param region as below, at least 16384 bytes
     * @param handleBase as below
     */
    public RegionPool(MemorySegment region, long handleBase) {
        this(
                region,
                handleBase,
                Math.min(region.byteSize() / BOUNCE_SHARE, Integer.MAX_VALUE) & -PAGE_BYTES);
    }

    /**
     * Divides a region.
     *
     * @param region native memory, accessible from every thread, a multiple of 4096 bytes
     * @param handleBase what the device is told for the region's first byte, above 0 when there are
     *     no bounce slots to hide it behind
     * @param bounceBytes bytes of bounce slots, a multiple of 4096, at least one slot
     */
    public RegionPool(MemorySegment region, long handleBase, long bounceBytes) {
        if (!region.isNative() || region.byteSize() % PAGE_BYTES != 0) {
            throw new IllegalArgumentException(
                    "a region is native memory of a multiple of 4096 bytes, not " + region);
        }
        if (bounceBytes < PAGE_BYTES
                || bounceBytes % PAGE_BYTES != 0
                || bounceBytes > Math.min(region.byteSize(), Integer.MAX_VALUE)) {
            throw new IllegalArgumentException(
                    "%d bounce bytes, limits are 4096 and the region's %d, in pages"
                            .formatted(bounceBytes, region.byteSize()));
        }
        if (handleBase <= 0 || handleBase > Long.MAX_VALUE - region.byteSize()) {
            throw new IllegalArgumentException(
                    "handle base %#x, limits are 1 and %#x"
                            .formatted(handleBase, Long.MAX_VALUE - region.byteSize()));
        }
        this.region = region;
        this.address = region.address();
        this.bytes = region.byteSize();
        this.handleBase = handleBase;
        this.bounceBytes = bounceBytes;
        this.bounce = new BouncePool(region, bounceBytes);
        if (region.byteSize() > bounceBytes) {
            free.put(bounceBytes, region.byteSize() - bounceBytes);
        }
    }

    /** The region. */
    public MemorySegment region() {
        return region;
    }

    /** What the device is told for the region's first byte. */
    public long handleBase() {
        return handleBase;
    }

    /** Whether the handle points into the region. */
    public boolean contains(long mapHandle) {
        long at = mapHandle - handleBase;
        return at >= 0 && at < bytes;
    }

    /** Whether the segment lies in the region, so that mapping it copies nothing. */
    public boolean contains(MemorySegment segment) {
        return segment.isNative()
                && segment.address() >= address
                && segment.address() - address <= bytes - segment.byteSize();
    }

    /** As {@link MapOps#alloc}. */
    public CoherentMemory alloc(long size) {
        if (size <= 0) {
            throw new IllegalArgumentException("alloc of %d bytes, limit is 1".formatted(size));
        }
        if (size > bytes) {
            return null;
        }
        long length = (size + PAGE_BYTES - 1) & -PAGE_BYTES;
        long offset = -1;
        synchronized (free) {
            for (Map.Entry<Long, Long> piece : free.entrySet()) {
                if (piece.getValue() >= length) {
                    offset = piece.getKey();
                    break;
                }
            }
            if (offset < 0) {
                return null;
            }
            long rest = free.remove(offset) - length;
            if (rest > 0) {
                free.put(offset + length, rest);
            }
            allocated.put(offset, length);
        }
        MemorySegment segment = region.asSlice(offset, size);
        segment.fill((byte) 0);
        return new CoherentMemory(segment, handleBase + offset);
    }

    /**
     * As {@link MapOps#free}.
     *
     * @throws IllegalArgumentException when it was not allocated here, or is free already
     */
    public void free(CoherentMemory memory) {
        long offset = memory.mapHandle() - handleBase;
        synchronized (free) {
            Long length = allocated.remove(offset);
            if (length == null) {
                throw new IllegalArgumentException(
                        "free of handle %#x, which is not allocated".formatted(memory.mapHandle()));
            }
            Map.Entry<Long, Long> before = free.lowerEntry(offset);
            if (before != null && before.getKey() + before.getValue() == offset) {
                offset = before.getKey();
                length += before.getValue();
            }
            Long after = free.remove(offset + length);
            free.put(offset, after == null ? length : length + after);
        }
    }

    /** As {@link MapOps#mapPage}. */
    public long map(MemorySegment page, long offset, long size, Direction direction, long attrs) {
        checkSize(size, bounce.maxMappingSize());
        if (page.isNative()) {
            long mapHandle = handle(page.address() + offset, size);
            if (mapHandle != MapOps.MAPPING_ERROR) {
                return mapHandle;
            }
        }
        return bounce(page, offset, size, direction, attrs);
    }

    static void checkSize(long size, long limit) {
        if (size <= 0 || size > limit) {
            throw new IllegalArgumentException(
                    "mapping of %d bytes, limits are 1 and %d".formatted(size, limit));
        }
    }

    /** The handle of what lies in the region; {@link MapOps#MAPPING_ERROR} when it does not. */
    long handle(long from, long size) {
        long at = from - address;
        return at >= 0 && at <= bytes - size ? handleBase + at : MapOps.MAPPING_ERROR;
    }

    /** {@link #map} of what does not lie in the region, no larger than a mapping can be. */
    long bounce(MemorySegment page, long offset, long size, Direction direction, long attrs) {
        long at = bounce.map(page, offset, size, direction, (attrs & MapOps.SKIP_CPU_SYNC) == 0);
        return at < 0 ? MapOps.MAPPING_ERROR : handleBase + at;
    }

    /** As {@link MapOps#unmapPage}. */
    public void unmap(long mapHandle, long size, Direction direction, long attrs) {
        if (needSync(mapHandle)) {
            bounce.unmap(
                    mapHandle - handleBase, size, direction, (attrs & MapOps.SKIP_CPU_SYNC) == 0);
        }
    }

    /** As {@link MapOps#syncSingleForCpu}. */
    public void syncForCpu(long mapHandle, long size, Direction direction) {
        if (direction.fromDevice() && needSync(mapHandle)) {
            bounce.syncForCpu(mapHandle - handleBase, size);
        }
    }

    /** As {@link MapOps#syncSingleForDevice}. */
    public void syncForDevice(long mapHandle, long size, Direction direction) {
        if (direction.toDevice() && needSync(mapHandle)) {
            bounce.syncForDevice(mapHandle - handleBase, size);
        }
    }

    /** As {@link MapOps#needSync}: whether the handle is a bounced one. */
    public boolean needSync(long mapHandle) {
        if (!contains(mapHandle)) {
            throw notHere(mapHandle);
        }
        return bounced(mapHandle);
    }

    IllegalArgumentException notHere(long mapHandle) {
        return new IllegalArgumentException(
                "handle %#x, limits are %#x and %#x"
                        .formatted(mapHandle, handleBase, handleBase + bytes - 1));
    }

    /** {@link #needSync} of a handle that points into the region. */
    boolean bounced(long mapHandle) {
        return mapHandle - handleBase < bounceBytes;
    }

    /** As {@link MapOps#maxMappingSize}: 256 KiB, or all bounce slots if they are fewer. */
    public long maxMappingSize() {
        return bounce.maxMappingSize();
    }

    /** Allocations and bounced mappings that were not given back yet. */
    public int live() {
        synchronized (free) {
            return allocated.size() + bounce.live();
        }
    }
}
