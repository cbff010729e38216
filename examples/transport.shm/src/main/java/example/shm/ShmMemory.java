package example.shm;

import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;

import java.lang.foreign.Arena;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The driver's memory: one region of the file, in which the map operations of {@code virtio.api}
 * allocate and bounce. A map handle is an offset in the file.
 *
 * <p>Consumers keep memory that they allocated when the transport is closed, so the region stays
 * this process's until the last of it was given back; the next driver takes another region.
 * Thread-safe.
 */
final class ShmMemory implements MapToken {
    private final ShmFile file;
    private final int region;
    private final Arena arena = Arena.ofShared();
    private final RegionPool pool;
    private final AtomicInteger holders = new AtomicInteger(1);
    private final AtomicBoolean released = new AtomicBoolean();

    /** Held once; takes the file over and closes it when it is given back. */
    ShmMemory(ShmFile file, int region, long bounceBytes) throws VirtioException {
        this.file = file;
        this.region = region;
        try {
            pool =
                    new RegionPool(
                            file.mapRegion(region, arena), file.regionOffset(region), bounceBytes);
        } catch (VirtioException | RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    RegionPool pool() {
        return pool;
    }

    void hold() {
        holders.getAndIncrement();
    }

    void release() {
        holders.getAndDecrement();
        givenBack();
    }

    /** To be called after each thing given back. */
    void givenBack() {
        if (holders.get() == 0 && pool.live() == 0 && released.compareAndSet(false, true)) {
            if (file.isWhole()) {
                file.setLong(ShmLayout.REGION_OWNERS + 16 * region, 0);
            }
            arena.close();
            file.close();
        }
    }
}
