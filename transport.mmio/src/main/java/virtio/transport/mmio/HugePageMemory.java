package virtio.transport.mmio;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;
import virtio.linux.Errno;
import virtio.linux.LinuxException;
import virtio.linux.PhysicalMemory;

import java.nio.file.Path;

/**
 * Memory for a window of the machine, whose device is told physical addresses: huge pages, a region
 * for each piece of them that is contiguous there.
 */
final class HugePageMemory extends RegionMemory {
    private final PhysicalMemory pages;

    private HugePageMemory(PhysicalMemory pages) {
        super(pages.extents().stream().map(HugePageMemory::region).toArray(RegionPool[]::new));
        this.pages = pages;
    }

    private static RegionPool region(PhysicalMemory.Extent extent) {
        return new RegionPool(extent.segment(), extent.physicalAddress());
    }

    /**
     * Memory held once.
     *
     * @param root the root of the machine's file system
     */
    static HugePageMemory create(Path root, String name, int pageCount) throws VirtioException {
        PhysicalMemory pages;
        try {
            pages = PhysicalMemory.create(name, pageCount * PhysicalMemory.PAGE_BYTES);
        } catch (LinuxException e) {
            throw new VirtioException(
                    "no memory for mmio:%s: %s: %s"
                            .formatted(
                                    name,
                                    e.getMessage(),
                                    e.errno() == Errno.ENOMEM
                                            ? lacking(root, pageCount)
                                            : "only root may know physical addresses"),
                    e);
        }
        try {
            return new HugePageMemory(pages);
        } catch (RuntimeException e) {
            pages.close();
            throw e;
        }
    }

    /** What to do where there are not as many pages free. */
    static String lacking(Path root, int pageCount) {
        return PhysicalMemory.lacking(root, pageCount)
                + ", or lower hugePages of virtio.transport.mmio";
    }

    @Override
    protected void unmap(RegionPool region, int left) {
        if (left == 0) {
            pages.close();
        }
    }
}
