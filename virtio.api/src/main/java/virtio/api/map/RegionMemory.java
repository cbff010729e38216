package virtio.api.map;

import org.osgi.annotation.versioning.ConsumerType;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The driver's memory as one device sees it: regions in which coherent memory is allocated and
 * everything else is bounced; the token of {@link RegionMapOps}.
 *
 * <pre>
 * | bounce slots | coherent memory |   one or more regions, made when the device is opened
 * | 1 slot       | coherent memory |   further ones that {@link #grow} makes; their slot is unused
 * </pre>
 *
 * <p>What lies in a region is mapped where it is, at any size; any other segment is bounced. A
 * region outlives its device: it is unmapped when nobody holds the memory any more and the last
 * thing that was allocated or bounced in it was given back.
 *
 * <p>Thread-safe. Mapping and unmapping take no lock and allocate nothing.
 */
@ConsumerType
public abstract class RegionMemory implements MapToken {
    /** As many regions bounce, the first ones. */
    private final int bouncing;

    private final long maxMappingSize;
    private final AtomicInteger holders = new AtomicInteger(1);
    private final Set<RegionPool> unmapped = new HashSet<>();

    /** Replaced, never changed. */
    private volatile RegionPool[] regions;

    private volatile boolean closed;

    /** Where the last foreign buffer found a bounce slot; a hint. */
    private int last;

    /**
     * Memory held once.
     *
     * @param regions at least one, whose handles do not overlap
     */
    protected RegionMemory(RegionPool... regions) {
        this.regions = regions.clone();
        bouncing = regions.length;
        maxMappingSize =
                Arrays.stream(regions).mapToLong(RegionPool::maxMappingSize).min().orElseThrow();
    }

    /**
     * Gives a region back to where it came from. Called once for each, with this object's lock
     * held.
     *
     * @param left how many regions are not unmapped yet
     */
    protected abstract void unmap(RegionPool region, int left);

    /**
     * Makes a further region, and shows it to the device; called with this object's lock held.
     *
     * @param size bytes of an allocation for which there is no room
     * @return a region with one bounce slot and that much room behind it; null when there cannot be
     *     any, as here
     */
    protected RegionPool grow(long size) {
        return null;
    }

    /** Keeps the memory until {@link #release}; to be called by somebody who holds it already. */
    public final void hold() {
        holders.getAndIncrement();
    }

    /**
     * Lets the memory go. When nobody holds it any more, nothing new is mapped or allocated, and
     * what is live stays usable until it is given back.
     */
    public final void release() {
        if (holders.decrementAndGet() == 0) {
            closed = true;
            for (RegionPool region : regions) {
                givenBack(region);
            }
        }
    }

    /** After each thing given back, once closed. */
    private synchronized void givenBack(RegionPool region) {
        if (region.live() == 0 && unmapped.add(region)) {
            unmap(region, regions.length - unmapped.size());
        }
    }

    /** The region that a handle points into. */
    final RegionPool pool(long mapHandle) {
        RegionPool[] all = regions;
        for (RegionPool region : all) {
            if (region.contains(mapHandle)) {
                return region;
            }
        }
        throw all[0].notHere(mapHandle);
    }

    /** As {@link MapOps#mapPage}. */
    public final long map(
            MemorySegment page, long offset, long size, Direction direction, long attrs) {
        if (closed) {
            return MapOps.MAPPING_ERROR;
        }
        RegionPool[] all = regions;
        if (page.isNative() && size > 0) {
            long address = page.address() + offset;
            for (RegionPool region : all) {
                long mapHandle = region.handle(address, size);
                if (mapHandle != MapOps.MAPPING_ERROR) {
                    return mapHandle;
                }
            }
        }
        RegionPool.checkSize(size, maxMappingSize);
        long mapHandle = all[last].bounce(page, offset, size, direction, attrs);
        for (int i = 0; mapHandle == MapOps.MAPPING_ERROR && i < bouncing; i++) {
            mapHandle = all[i].bounce(page, offset, size, direction, attrs);
            last = i;
        }
        return mapHandle;
    }

    /** As {@link MapOps#unmapPage}. */
    public final void unmap(long mapHandle, long size, Direction direction, long attrs) {
        RegionPool region = pool(mapHandle);
        if (region.bounced(mapHandle)) {
            region.unmap(mapHandle, size, direction, attrs);
            if (closed) {
                givenBack(region);
            }
        }
    }

    /** As {@link MapOps#alloc}: no larger than what is free of a region. */
    public final synchronized CoherentMemory alloc(long size) {
        if (closed) {
            return null;
        }
        RegionPool[] before = regions;
        for (RegionPool region : before) {
            CoherentMemory memory = region.alloc(size);
            if (memory != null) {
                return memory;
            }
        }
        RegionPool grown = grow(size);
        if (grown == null) {
            return null;
        }
        RegionPool[] after = Arrays.copyOf(before, before.length + 1);
        after[before.length] = grown;
        regions = after;
        return grown.alloc(size);
    }

    /**
     * As {@link MapOps#free}.
     *
     * @throws IllegalArgumentException when it was not allocated here, or is free already
     */
    public final void free(CoherentMemory memory) {
        RegionPool region = pool(memory.mapHandle());
        region.free(memory);
        if (closed) {
            givenBack(region);
        }
    }

    /** As {@link MapOps#maxMappingSize}: the most that is bounced in one piece. */
    public final long maxMappingSize() {
        return maxMappingSize;
    }
}
