package virtio.transport.mmio;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * What a device sees of the driver's memory: one region, or several where the machine's memory has
 * no piece as large, each with coherent memory and bounce slots.
 *
 * <p>Held by the open transport and by the window that it drives; given back when both have let go
 * and nothing is mapped any more. Thread-safe; mapping allocates and locks nothing.
 */
abstract class MmioMemory implements MapToken {
    private final RegionPool[] pools;
    private final long maxMappingSize;
    private final AtomicInteger holders = new AtomicInteger(1);
    private final AtomicBoolean unmapped = new AtomicBoolean();

    /** Where the last foreign buffer found a bounce slot; a hint. */
    private int last;

    /** Memory held once. */
    MmioMemory(RegionPool... pools) {
        this.pools = pools;
        long max = Long.MAX_VALUE;
        for (RegionPool pool : pools) {
            max = Math.min(max, pool.maxMappingSize());
        }
        maxMappingSize = max;
    }

    /** Gives the memory back; called once. */
    abstract void unmap();

    /** Keeps the memory until {@link #release}. */
    final void hold() {
        holders.getAndIncrement();
    }

    final void release() {
        holders.getAndDecrement();
        givenBack();
    }

    /** After each thing given back: unmaps when it was the last. */
    private void givenBack() {
        if (holders.get() == 0 && live() == 0 && unmapped.compareAndSet(false, true)) {
            unmap();
        }
    }

    private int live() {
        int live = 0;
        for (RegionPool pool : pools) {
            live += pool.live();
        }
        return live;
    }

    /** The region of a handle; the first for a handle of none, which then says so. */
    final RegionPool pool(long mapHandle) {
        for (int i = 1; i < pools.length; i++) {
            if (pools[i].contains(mapHandle)) {
                return pools[i];
            }
        }
        return pools[0];
    }

    /** As {@link MapOps#mapPage}. */
    final long map(MemorySegment page, long offset, long size, Direction direction, long attrs) {
        if (pools.length == 1) {
            return pools[0].map(page, offset, size, direction, attrs);
        }
        for (RegionPool pool : pools) {
            // Within one region, what the device is told is contiguous.
            if (pool.contains(page)) {
                return pool.map(page, offset, size, direction, attrs);
            }
        }
        int start = last;
        for (int i = 0; i < pools.length; i++) {
            int at = (start + i) % pools.length;
            long mapHandle = pools[at].map(page, offset, size, direction, attrs);
            if (mapHandle != MapOps.MAPPING_ERROR) {
                last = at;
                return mapHandle;
            }
        }
        return MapOps.MAPPING_ERROR;
    }

    /** As {@link MapOps#unmapPage}. */
    final void unmap(long mapHandle, long size, Direction direction, long attrs) {
        pool(mapHandle).unmap(mapHandle, size, direction, attrs);
        givenBack();
    }

    /** As {@link MapOps#alloc}: no larger than a region. */
    final CoherentMemory alloc(long size) {
        for (RegionPool pool : pools) {
            CoherentMemory memory = pool.alloc(size);
            if (memory != null) {
                return memory;
            }
        }
        return null;
    }

    /** As {@link MapOps#free}. */
    final void free(CoherentMemory memory) {
        pool(memory.mapHandle()).free(memory);
        givenBack();
    }

    /** As {@link MapOps#maxMappingSize}. */
    final long maxMappingSize() {
        return maxMappingSize;
    }
}
