package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The memory that one device sees: regions of shared memory, in which a handle is the address in
 * this process. A quarter of the first one is for bouncing.
 */
final class SharedRegions extends RegionMemory {
    /** Shows regions to the device; on failure none of the new ones counts as shown. */
    interface Sharer {
        void share(List<SharedMemory> all, int from) throws VirtioException;
    }

    /** Grown regions bounce nothing, but their pool wants a slot. */
    private static final long NO_BOUNCE_BYTES = 4096;

    private final long regionBytes;
    private final long pageBytes;
    private final int maxRegions;
    private final Sharer sharer;

    /** What regions lie in, in the order in which they were made. */
    private final Map<RegionPool, SharedMemory> memories = new LinkedHashMap<>();

    private boolean shared;

    /**
     * With a first region.
     *
     * @param regionBytes of a region, a multiple of {@code pageBytes}
     * @param pageBytes of the pages behind it
     * @throws LinuxException when there is no memory, or no huge pages
     */
    SharedRegions(long regionBytes, long pageBytes, int maxRegions, Sharer sharer)
            throws LinuxException {
        SharedMemory memory = SharedMemory.create("virtio", regionBytes, pageBytes);
        RegionPool first = new RegionPool(memory.segment(), memory.segment().address());
        super(first);
        this.regionBytes = regionBytes;
        this.pageBytes = pageBytes;
        this.maxRegions = maxRegions;
        this.sharer = sharer;
        memories.put(first, memory);
    }

    /** Shows the device what there is, and from now on what is added. */
    synchronized void share() throws VirtioException {
        if (!shared) {
            sharer.share(List.copyOf(memories.values()), 0);
            shared = true;
        }
    }

    /** The device has forgotten what it was shown, or takes it anew. */
    synchronized void unshare() {
        shared = false;
    }

    @Override
    protected RegionPool grow(long size) {
        if (memories.size() >= maxRegions || size > Long.MAX_VALUE / 2) {
            return null;
        }
        long needed = size + 2 * NO_BOUNCE_BYTES + pageBytes - 1;
        long bytes = Math.max(regionBytes, needed - needed % pageBytes);
        SharedMemory memory;
        try {
            memory = SharedMemory.create("virtio", bytes, pageBytes);
        } catch (LinuxException e) {
            return null;
        }
        if (shared) {
            List<SharedMemory> all = new ArrayList<>(memories.values());
            all.add(memory);
            try {
                sharer.share(all, memories.size());
            } catch (VirtioException e) {
                memory.close();
                return null;
            }
        }
        RegionPool grown =
                new RegionPool(memory.segment(), memory.segment().address(), NO_BOUNCE_BYTES);
        memories.put(grown, memory);
        return grown;
    }

    @Override
    protected void unmap(RegionPool region, int left) {
        memories.get(region).close();
    }
}
