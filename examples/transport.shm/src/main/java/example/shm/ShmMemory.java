package example.shm;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;

import java.lang.foreign.Arena;

/**
 * The driver's memory: one region of the file. A map handle is an offset in the file.
 *
 * <p>Consumers keep memory that they allocated when the transport is closed, so the region stays
 * this process's until the last of it was given back; the next driver takes another region.
 */
final class ShmMemory extends RegionMemory {
    private final ShmFile file;
    private final int region;
    private final Arena arena;

    /** Held once; takes the file over and closes it when it is given back. */
    ShmMemory(ShmFile file, int region, long bounceBytes) throws VirtioException {
        Arena arena = Arena.ofShared();
        RegionPool pool;
        try {
            pool =
                    new RegionPool(
                            file.mapRegion(region, arena), file.regionOffset(region), bounceBytes);
        } catch (VirtioException | RuntimeException e) {
            arena.close();
            throw e;
        }
        super(pool);
        this.file = file;
        this.region = region;
        this.arena = arena;
    }

    @Override
    protected void unmap(RegionPool pool, int left) {
        if (file.isWhole()) {
            file.setLong(ShmLayout.REGION_OWNERS + 16 * region, 0);
        }
        arena.close();
        file.close();
    }
}
