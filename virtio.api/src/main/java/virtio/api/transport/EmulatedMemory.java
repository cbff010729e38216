package virtio.api.transport;

import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The memory of the driver of an emulated device, in the same process: one region, at a bus address
 * that is deliberately not its address in the process, so that nobody takes the one for the other.
 *
 * <p>{@link #translate} is a comparison and an addition.
 */
public final class EmulatedMemory extends RegionMemory implements DriverMemory {
    private static final AtomicInteger OPENED = new AtomicInteger();

    /** Bus addresses of two open devices never meet: a handle of the one faults in the other. */
    private static final int SPACES = 1 << 20;

    private static final int SPACE_SHIFT = 40;

    private final long handleBase;
    private final long address;
    private final long sizeBytes;
    private final Runnable unmap;

    /**
     * Memory held once.
     *
     * @param region native memory, accessible from every thread, a multiple of 4096 bytes and at
     *     most 1 TiB
     * @param bounceBytes of it for bounce slots, a multiple of 4096, at least one slot
     * @param unmap gives the region back; run once, by whoever gives back the last of it
     */
    public EmulatedMemory(MemorySegment region, long bounceBytes, Runnable unmap) {
        RegionPool pool = new RegionPool(region, nextSpace(), bounceBytes);
        super(pool);
        handleBase = pool.handleBase();
        address = region.address();
        sizeBytes = region.byteSize();
        this.unmap = unmap;
    }

    private static long nextSpace() {
        return (1L + Integer.remainderUnsigned(OPENED.getAndIncrement(), SPACES)) << SPACE_SHIFT;
    }

    @Override
    protected void unmap(RegionPool region, int left) {
        unmap.run();
    }

    @Override
    public long translate(long mapHandle, long length, boolean write) {
        long offset = mapHandle - handleBase;
        return offset >= 0 && length >= 0 && offset < sizeBytes && length <= sizeBytes - offset
                ? address + offset
                : FAULT;
    }

    @Override
    public long reach(long mapHandle, boolean write) {
        long offset = mapHandle - handleBase;
        return offset >= 0 && offset < sizeBytes ? sizeBytes - offset : 0;
    }
}
