package virtio.transport.vduse;

import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The addresses that one device sees (IOVA), and the memory behind them; what vduse_domain is to
 * the kernel (drivers/vdpa/vdpa_user/iova_domain.c).
 *
 * <pre>
 * | hole | bounce pages | coherent memory | hole | coherent memory | hole | ...
 *        region 0, made at the beginning         region n, made when what is there is full
 * </pre>
 *
 * <p>The memory is a memfd's, because the kernel shows nothing else to a device. A segment that
 * lies in it is mapped where it is, any other one is bounced by pages, cleared before the device
 * may see them. Mapping takes no lock, allocates nothing and asks nobody; regions are shown to the
 * device whole and in batches.
 *
 * <p>Thread-safe. Regions outlive the device: each is unmapped when the device is closed and the
 * last thing that was mapped or allocated in it is given back.
 */
final class IovaDomain implements MapToken {
    /** Changes what the device sees. */
    interface Shower {
        /** One of a batch that is begun and ended by {@link #begin} and {@link #end}. */
        void change(boolean show, long iova, long bytes, long address) throws LinuxException;

        void begin() throws LinuxException;

        void end() throws LinuxException;
    }

    private record Region(
            SharedMemory memory, RegionPool pool, long iova, long bytes, long address) {
        private long lastIova() {
            return iova + bytes - 1;
        }
    }

    private static final Logger LOG = System.getLogger(IovaDomain.class.getPackageName());

    /**
     * A hole before each region, so that what runs over the end of one is no access to the next.
     */
    private static final long HOLE_BYTES = 1L << 20;

    /** Grown regions bounce nothing, but their pool wants a slot. */
    private static final long NO_BOUNCE_BYTES = 4096;

    /** All regions together are at most this many times the first one. */
    private static final int MAX_GROWTH = 16;

    private final String name;
    private final long regionBytes;
    private final long pageBytes;
    private final long lastIova;
    private final Shower shower;

    /** Replaced, never changed; the first one is where bouncing is done. */
    private volatile Region[] regions;

    private volatile boolean closed;
    private boolean shown;

    /**
     * With a first region.
     *
     * @param name for people, as {@code vhost-vdpa:/dev/vhost-vdpa-0}
     * @param regionBytes of a region, a multiple of {@code pageBytes}; a quarter is for bouncing
     * @param pageBytes of the pages behind it
     * @param firstIova the first address that can be shown to the device
     * @param lastIova the last one, unsigned
     * @throws IOException when there is no memory, or no huge pages, or no room in the addresses
     */
    IovaDomain(
            String name,
            long regionBytes,
            long pageBytes,
            long firstIova,
            long lastIova,
            Shower shower)
            throws IOException {
        this.name = name;
        this.regionBytes = regionBytes;
        this.pageBytes = pageBytes;
        // Handles are positive numbers here, and there are more than enough of them.
        this.lastIova = lastIova < 0 ? Long.MAX_VALUE : lastIova;
        this.shower = shower;
        this.regions = new Region[] {region(firstIova, regionBytes, regionBytes / 4)};
    }

    private Region region(long from, long bytes, long bounceBytes) throws IOException {
        long align = Math.max(pageBytes, HOLE_BYTES);
        long start = from + HOLE_BYTES + align - 1 & -align;
        if (start <= 0 || start > lastIova || bytes - 1 > lastIova - start) {
            throw new VirtioException(
                    "%d bytes of memory at %#x and above, the device sees addresses to %#x"
                            .formatted(bytes, start, lastIova));
        }
        SharedMemory memory = SharedMemory.create("virtio-iova", bytes, pageBytes);
        MemorySegment segment = memory.segment();
        RegionPool pool = new RegionPool(segment, start, bounceBytes);
        return new Region(memory, pool, start, bytes, segment.address());
    }

    /** Shows the device what there is, and from now on what is added. */
    synchronized void show() throws LinuxException {
        if (!shown) {
            change(true, regions);
            shown = true;
        }
    }

    /** Takes everything away from the device, which has been reset. */
    synchronized void hide() throws LinuxException {
        if (shown) {
            shown = false;
            change(false, regions);
        }
    }

    private void change(boolean show, Region... changed) throws LinuxException {
        shower.begin();
        try {
            for (Region region : changed) {
                shower.change(show, region.iova, region.bytes, region.address);
            }
        } finally {
            shower.end();
        }
    }

    long map(MemorySegment page, long offset, long size, Direction direction, long attrs) {
        if (closed) {
            return MapOps.MAPPING_ERROR;
        }
        Region[] all = regions;
        if (page.isNative() && size > 0) {
            long address = page.address() + offset;
            for (Region region : all) {
                long at = address - region.address;
                if (at >= 0 && at <= region.bytes - size) {
                    return region.iova + at;
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

    /** Whether the handle is a bounce page's, as the kernel's {@code dma_addr < bounce_size}. */
    boolean needSync(long mapHandle) {
        Region first = regions[0];
        return first.pool.contains(mapHandle) && first.pool.needSync(mapHandle);
    }

    /** The most that is bounced in one piece. */
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
        if (size > MAX_GROWTH * regionBytes) {
            return null;
        }
        long needed = size + 2 * NO_BOUNCE_BYTES + pageBytes - 1;
        long bytes = Math.max(regionBytes, needed - needed % pageBytes);
        long all = Arrays.stream(before).mapToLong(Region::bytes).sum();
        if (bytes > MAX_GROWTH * regionBytes - all) {
            return null;
        }
        Region region;
        try {
            region = region(before[before.length - 1].lastIova() + 1, bytes, NO_BOUNCE_BYTES);
        } catch (IOException e) {
            return null;
        }
        if (shown) {
            try {
                change(true, region);
            } catch (LinuxException e) {
                LOG.log(Level.WARNING, "{0}: memory is not shown: {1}", name, e.getMessage());
                region.memory.close();
                return null;
            }
        }
        Region[] after = Arrays.copyOf(before, before.length + 1);
        after[before.length] = region;
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
