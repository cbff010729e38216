package virtio.transport.vduse;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.MemorySegment;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The addresses that one device sees (IOVA), and the memory behind them; what vduse_domain is to
 * the kernel (drivers/vdpa/vdpa_user/iova_domain.c).
 *
 * <pre>
 * | hole | bounce pages | coherent memory | hole | coherent memory | hole | ...
 *        region 0, made at the beginning         region n, made when what is there is full
 * </pre>
 *
 * <p>The memory is a memfd's, because the kernel shows nothing else to a device. Mapping asks
 * nobody: regions are shown to the device whole and in batches.
 */
final class IovaDomain extends RegionMemory {
    /** Changes what the device sees. */
    interface Shower {
        /** One of a batch that is begun and ended by {@link #begin} and {@link #end}. */
        void change(boolean show, long iova, long bytes, long address) throws LinuxException;

        void begin() throws LinuxException;

        void end() throws LinuxException;
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

    /** What regions lie in, in the order of their addresses. */
    private final Map<RegionPool, SharedMemory> memories = new LinkedHashMap<>();

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
        // Handles are positive numbers here, and there are more than enough of them.
        long last = lastIova < 0 ? Long.MAX_VALUE : lastIova;
        long iova = start(firstIova, regionBytes, pageBytes, last);
        SharedMemory memory = SharedMemory.create("virtio-iova", regionBytes, pageBytes);
        RegionPool first = new RegionPool(memory.segment(), iova);
        super(first);
        this.name = name;
        this.regionBytes = regionBytes;
        this.pageBytes = pageBytes;
        this.lastIova = last;
        this.shower = shower;
        memories.put(first, memory);
    }

    /** The address of a region that is to come behind a hole from {@code from}. */
    private static long start(long from, long bytes, long pageBytes, long lastIova)
            throws VirtioException {
        long align = Math.max(pageBytes, HOLE_BYTES);
        long start = from + HOLE_BYTES + align - 1 & -align;
        if (start <= 0 || start > lastIova || bytes - 1 > lastIova - start) {
            throw new VirtioException(
                    "%d bytes of memory at %#x and above, the device sees addresses to %#x"
                            .formatted(bytes, start, lastIova));
        }
        return start;
    }

    /** Shows the device what there is, and from now on what is added. */
    synchronized void show() throws LinuxException {
        if (!shown) {
            change(true, memories.keySet());
            shown = true;
        }
    }

    /** Takes everything away from the device, which has been reset. */
    synchronized void hide() throws LinuxException {
        if (shown) {
            shown = false;
            change(false, memories.keySet());
        }
    }

    private void change(boolean show, Collection<RegionPool> changed) throws LinuxException {
        shower.begin();
        try {
            for (RegionPool region : changed) {
                MemorySegment memory = region.region();
                shower.change(show, region.handleBase(), memory.byteSize(), memory.address());
            }
        } finally {
            shower.end();
        }
    }

    @Override
    protected RegionPool grow(long size) {
        if (size > MAX_GROWTH * regionBytes) {
            return null;
        }
        long needed = size + 2 * NO_BOUNCE_BYTES + pageBytes - 1;
        long bytes = Math.max(regionBytes, needed - needed % pageBytes);
        long all = 0;
        long end = 0;
        for (RegionPool region : memories.keySet()) {
            all += region.region().byteSize();
            end = region.handleBase() + region.region().byteSize();
        }
        if (bytes > MAX_GROWTH * regionBytes - all) {
            return null;
        }
        SharedMemory memory;
        RegionPool grown;
        try {
            long iova = start(end, bytes, pageBytes, lastIova);
            memory = SharedMemory.create("virtio-iova", bytes, pageBytes);
            grown = new RegionPool(memory.segment(), iova, NO_BOUNCE_BYTES);
        } catch (IOException e) {
            return null;
        }
        if (shown) {
            try {
                change(true, List.of(grown));
            } catch (LinuxException e) {
                LOG.log(Level.WARNING, "{0}: memory is not shown: {1}", name, e.getMessage());
                memory.close();
                return null;
            }
        }
        memories.put(grown, memory);
        return grown;
    }

    @Override
    protected void unmap(RegionPool region, int left) {
        memories.get(region).close();
    }

    @Override
    public String toString() {
        return name;
    }
}
