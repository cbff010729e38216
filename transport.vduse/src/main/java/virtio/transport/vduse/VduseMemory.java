package virtio.transport.vduse;

import virtio.api.transport.DriverMemory;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * The driver's memory as a VDUSE device sees it: regions that the kernel hands out by descriptor,
 * mapped when an address in them is first met, kept until the kernel says that they have changed.
 *
 * <p>{@link #translate} and {@link #reach} are for every thread, and neither lock nor allocate once
 * a region is mapped. {@link #drop} is for when no queue runs.
 */
final class VduseMemory implements DriverMemory, AutoCloseable {
    private static final Logger LOG = System.getLogger(VduseMemory.class.getPackageName());

    /** A driver that scatters its memory further is served no more of it. */
    static final int MAX_REGIONS = 4096;

    private record Mapped(
            Mapping mapping, long start, long last, long address, boolean readable, boolean write) {
        static Mapped map(VduseDevice.Region region, FileDescriptor file) throws LinuxException {
            boolean write = (region.permission() & VduseDevice.ACCESS_WO) != 0;
            boolean read = (region.permission() & VduseDevice.ACCESS_RO) != 0;
            long bytes = region.last() - region.start() + 1;
            long offset = region.offset();
            // All of a file: a part could be neither mapped nor unmapped on huge pages, where a
            // driver's memory begins in the middle of one. The kernel's own has no size.
            long fileBytes = file.sizeBytes();
            boolean all = offset >= 0 && bytes <= fileBytes - offset;
            Mapping mapping =
                    all
                            ? Mapping.map(file, 0, fileBytes, write)
                            : Mapping.map(file, offset, bytes, write);
            long address = mapping.segment().address() + (all ? offset : 0);
            return new Mapped(mapping, region.start(), region.last(), address, read, write);
        }
    }

    private static final Mapped[] NONE = {};

    private final String name;
    private final VduseDevice device;

    /** Sorted, disjoint; replaced, never changed. */
    private volatile Mapped[] regions = NONE;

    VduseMemory(String name, VduseDevice device) {
        this.name = name;
        this.device = device;
    }

    @Override
    public long translate(long mapHandle, long length, boolean write) {
        if (length <= 0 || mapHandle < 0 || mapHandle > Long.MAX_VALUE - length) {
            return FAULT;
        }
        Mapped region = find(mapHandle);
        if (region == null
                || mapHandle + length - 1 > region.last
                || !(write ? region.write : region.readable)) {
            return FAULT;
        }
        return region.address + (mapHandle - region.start);
    }

    @Override
    public long reach(long mapHandle, boolean write) {
        Mapped region = mapHandle < 0 ? null : find(mapHandle);
        return region == null || !(write ? region.write : region.readable)
                ? 0
                : region.last - mapHandle + 1;
    }

    private Mapped find(long handle) {
        Mapped found = find(regions, handle);
        return found != null ? found : fetch(handle);
    }

    private static Mapped find(Mapped[] sorted, long handle) {
        int low = 0;
        int high = sorted.length - 1;
        while (low <= high) {
            int middle = low + high >>> 1;
            Mapped region = sorted[middle];
            if (handle < region.start) {
                high = middle - 1;
            } else if (handle > region.last) {
                low = middle + 1;
            } else {
                return region;
            }
        }
        return null;
    }

    /** Asks the kernel for the region of an address that is met for the first time. */
    private synchronized Mapped fetch(long handle) {
        Mapped[] before = regions;
        Mapped found = find(before, handle);
        if (found != null) {
            return found;
        }
        if (before.length == MAX_REGIONS) {
            LOG.log(Level.WARNING, "{0}: the driver has more than {1} regions", name, MAX_REGIONS);
            return null;
        }
        try {
            VduseDevice.Region region = device.region(handle, handle);
            if (region == null) {
                return null;
            }
            try (FileDescriptor file = region.file()) {
                if (region.start() < 0 || region.last() < region.start()) {
                    return null;
                }
                found = Mapped.map(region, file);
            }
        } catch (LinuxException e) {
            LOG.log(Level.WARNING, "{0}: memory at {1}: {2}", name, handle, e.getMessage());
            return null;
        }
        List<Mapped> after = new ArrayList<>(List.of(before));
        after.add(found);
        after.sort(Comparator.comparingLong(Mapped::start));
        regions = after.toArray(NONE);
        return found;
    }

    /**
     * Whether anything is mapped that meets the addresses from start to last, unsigned; what a
     * queue is about to map, from before the kernel asked, counts.
     */
    synchronized boolean meets(long start, long last) {
        for (Mapped region : regions) {
            if (meets(region, start, last)) {
                return true;
            }
        }
        return false;
    }

    private static boolean meets(Mapped region, long start, long last) {
        return Long.compareUnsigned(region.start, last) <= 0
                && Long.compareUnsigned(region.last, start) >= 0;
    }

    /** Unmaps what meets the addresses from start to last, unsigned; no queue runs. */
    synchronized void drop(long start, long last) {
        List<Mapped> kept = new ArrayList<>();
        List<Mapped> dropped = new ArrayList<>();
        for (Mapped region : regions) {
            (meets(region, start, last) ? dropped : kept).add(region);
        }
        regions = kept.toArray(NONE);
        dropped.forEach(region -> region.mapping.close());
    }

    /** Unmaps everything; no queue runs. */
    @Override
    public void close() {
        drop(0, -1);
    }
}
