package virtio.transport.pci;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * What a device sees of the driver's memory: regions that are mapped when the device is opened, in
 * which coherent memory is allocated and everything else is bounced.
 *
 * <p>Mostly it is one region; where the device is told physical addresses there are as many as the
 * memory has contiguous pieces.
 *
 * <p>Held by whoever uses it, and given back when all have let go and nothing is mapped any more.
 * Thread-safe; nothing but {@link #alloc} and {@link #free} locks or allocates.
 */
abstract class PciMemory implements MapToken {
    private final RegionPool[] pools;
    private final long maxMappingBytes;
    private final AtomicInteger holders = new AtomicInteger(1);
    private final AtomicBoolean unmapped = new AtomicBoolean();

    /** Memory held once, in at least one region. */
    PciMemory(RegionPool... pools) {
        this.pools = pools;
        long max = Long.MAX_VALUE;
        for (RegionPool pool : pools) {
            max = Math.min(max, pool.maxMappingSize());
        }
        maxMappingBytes = max;
    }

    /**
     * Whether an IOMMU stands between the device and memory, so that handles mean nothing to a
     * device that does not know of it.
     */
    abstract boolean translated();

    /** Gives the memory back to where it came from; called once. */
    abstract void unmap();

    /** Keeps the memory until {@link #release}. */
    final void hold() {
        holders.getAndIncrement();
    }

    final void release() {
        holders.getAndDecrement();
        givenBack();
    }

    private void givenBack() {
        if (holders.get() == 0 && live() == 0 && unmapped.compareAndSet(false, true)) {
            unmap();
        }
    }

    /** Allocations and bounced mappings that were not given back yet. */
    final int live() {
        int live = 0;
        for (RegionPool pool : pools) {
            live += pool.live();
        }
        return live;
    }

    /** The region of a handle; the first one for a handle of none, so that it says so. */
    private RegionPool of(long mapHandle) {
        for (int i = 1; i < pools.length; i++) {
            if (pools[i].contains(mapHandle)) {
                return pools[i];
            }
        }
        return pools[0];
    }

    final long map(MemorySegment page, long offset, long size, Direction direction, long attrs) {
        if (size > maxMappingBytes) {
            throw new IllegalArgumentException(
                    "mapping of %d bytes, limits are 1 and %d".formatted(size, maxMappingBytes));
        }
        for (int i = 1; i < pools.length; i++) {
            if (pools[i].contains(page)) {
                return pools[i].map(page, offset, size, direction, attrs);
            }
        }
        long handle = pools[0].map(page, offset, size, direction, attrs);
        for (int i = 1; handle == MapOps.MAPPING_ERROR && i < pools.length; i++) {
            handle = pools[i].map(page, offset, size, direction, attrs);
        }
        return handle;
    }

    final void unmap(long mapHandle, long size, Direction direction, long attrs) {
        of(mapHandle).unmap(mapHandle, size, direction, attrs);
        givenBack();
    }

    final void syncForCpu(long mapHandle, long size, Direction direction) {
        of(mapHandle).syncForCpu(mapHandle, size, direction);
    }

    final void syncForDevice(long mapHandle, long size, Direction direction) {
        of(mapHandle).syncForDevice(mapHandle, size, direction);
    }

    final CoherentMemory alloc(long size) {
        CoherentMemory memory = null;
        for (int i = 0; memory == null && i < pools.length; i++) {
            memory = pools[i].alloc(size);
        }
        return memory;
    }

    final void free(CoherentMemory memory) {
        of(memory.mapHandle()).free(memory);
        givenBack();
    }

    final boolean needSync(long mapHandle) {
        return of(mapHandle).needSync(mapHandle);
    }

    final long maxMappingBytes() {
        return maxMappingBytes;
    }
}
