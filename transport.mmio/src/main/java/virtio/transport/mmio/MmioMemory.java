package virtio.transport.mmio;

import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;
import virtio.api.transport.DriverMemory;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * What an emulated device sees of the driver's memory: one region, at a bus address that is
 * deliberately not its address in the process, so that nobody takes the one for the other.
 *
 * <p>Held by the open transport and by the window that it drives; unmapped when both have let go
 * and nothing is mapped any more. Thread-safe; {@link #translate} is a comparison and an addition.
 */
final class MmioMemory implements MapToken, DriverMemory {
    private static final AtomicInteger OPENED = new AtomicInteger();

    /** Bus addresses of two open devices never meet: a handle of the one faults in the other. */
    private static final int SPACES = 1 << 20;

    private static final int SPACE_SHIFT = 40;

    private final SharedMemory shared;
    private final RegionPool pool;
    private final long handleBase;
    private final long address;
    private final long sizeBytes;
    private final AtomicInteger holders = new AtomicInteger(1);
    private final AtomicBoolean unmapped = new AtomicBoolean();

    /**
     * Memory held once.
     *
     * @param sizeBytes a multiple of 4096, {@code bounceBytes} included
     */
    MmioMemory(String name, long sizeBytes, long bounceBytes) throws LinuxException {
        handleBase =
                (1L + Integer.remainderUnsigned(OPENED.getAndIncrement(), SPACES)) << SPACE_SHIFT;
        shared = SharedMemory.create("virtio-mmio-" + name, sizeBytes);
        try {
            pool = new RegionPool(shared.segment(), handleBase, bounceBytes);
        } catch (RuntimeException e) {
            shared.close();
            throw e;
        }
        address = shared.segment().address();
        this.sizeBytes = sizeBytes;
    }

    RegionPool pool() {
        return pool;
    }

    /** Keeps the region mapped until {@link #release}. */
    void hold() {
        holders.getAndIncrement();
    }

    void release() {
        holders.getAndDecrement();
        givenBack();
    }

    /** To be called after each thing given back: unmaps the region when it was the last. */
    void givenBack() {
        if (holders.get() == 0 && pool.live() == 0 && unmapped.compareAndSet(false, true)) {
            shared.close();
        }
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
