package virtio.transport.mmio;

import virtio.api.map.RegionPool;
import virtio.api.transport.DriverMemory;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * Memory for an emulated window: one region, at a bus address that is deliberately not its address
 * in the process, so that nobody takes the one for the other.
 *
 * <p>{@link #translate} is a comparison and an addition.
 */
final class EmulatedMemory extends MmioMemory implements DriverMemory {
    private static final AtomicInteger OPENED = new AtomicInteger();

    /** Bus addresses of two open devices never meet: a handle of the one faults in the other. */
    private static final int SPACES = 1 << 20;

    private static final int SPACE_SHIFT = 40;

    private final SharedMemory shared;
    private final long handleBase;
    private final long address;
    private final long sizeBytes;

    private EmulatedMemory(SharedMemory shared, RegionPool pool) {
        super(pool);
        this.shared = shared;
        handleBase = pool.handleBase();
        address = shared.segment().address();
        sizeBytes = shared.segment().byteSize();
    }

    /**
     * Memory held once.
     *
     * @param sizeBytes a multiple of 4096, {@code bounceBytes} included
     */
    static EmulatedMemory create(String name, long sizeBytes, long bounceBytes)
            throws LinuxException {
        long base =
                (1L + Integer.remainderUnsigned(OPENED.getAndIncrement(), SPACES)) << SPACE_SHIFT;
        SharedMemory shared = SharedMemory.create("virtio-mmio-" + name, sizeBytes);
        try {
            return new EmulatedMemory(shared, new RegionPool(shared.segment(), base, bounceBytes));
        } catch (RuntimeException e) {
            shared.close();
            throw e;
        }
    }

    @Override
    void unmap() {
        shared.close();
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
