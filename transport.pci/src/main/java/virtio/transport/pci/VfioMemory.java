package virtio.transport.pci;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.api.map.RegionPool;
import virtio.linux.Errno;
import virtio.linux.LinuxException;
import virtio.linux.PhysicalMemory;
import virtio.linux.SharedMemory;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.List;

/**
 * The memory of a driver of a real function. Behind an IOMMU it is one region, of huge pages where
 * there are any; without one it is huge pages at their physical addresses.
 */
final class VfioMemory extends RegionMemory {
    private static final Logger LOG = System.getLogger(VfioMemory.class.getPackageName());

    private final AutoCloseable memory;
    private final VfioGroup group;
    private final long iova;
    private final long bytes;
    private boolean cutOff;

    private VfioMemory(
            AutoCloseable memory, VfioGroup group, long iova, long bytes, RegionPool... pools) {
        super(pools);
        this.memory = memory;
        this.group = group;
        this.iova = iova;
        this.bytes = bytes;
    }

    /**
     * Memory held once, which the group's devices reach until {@link #cutOff}.
     *
     * @param where the device's address, for messages
     * @param sizeBytes {@code bounceBytes} included
     */
    static VfioMemory create(String where, VfioGroup group, long sizeBytes, long bounceBytes)
            throws VirtioException {
        long huge = PhysicalMemory.PAGE_BYTES;
        long bytes = (sizeBytes + huge - 1) / huge * huge;
        String name = where.replace(':', '-');
        return group.translates()
                ? translated(where, name, group, bytes, bounceBytes)
                : physical(where, name, group, bytes);
    }

    private static VfioMemory translated(
            String where, String name, VfioGroup group, long bytes, long bounceBytes)
            throws VirtioException {
        SharedMemory memory;
        try {
            memory = shared(name, bytes);
        } catch (LinuxException e) {
            throw new VirtioException("no memory for %s: %s".formatted(where, e.getMessage()), e);
        }
        try {
            long iova = group.map(where, memory.segment(), PhysicalMemory.PAGE_BYTES);
            RegionPool pool = new RegionPool(memory.segment(), iova, bounceBytes);
            return new VfioMemory(memory, group, iova, bytes, pool);
        } catch (VirtioException | RuntimeException e) {
            memory.close();
            throw e;
        }
    }

    /** Huge pages cost the IOMMU and its caches less; ordinary ones do as well. */
    private static SharedMemory shared(String name, long bytes) throws LinuxException {
        try {
            return SharedMemory.create(name, bytes, PhysicalMemory.PAGE_BYTES);
        } catch (LinuxException e) {
            return SharedMemory.create(name, bytes);
        }
    }

    private static VfioMemory physical(String where, String name, VfioGroup group, long bytes)
            throws VirtioException {
        PhysicalMemory memory;
        try {
            memory = PhysicalMemory.create(name, bytes);
        } catch (LinuxException e) {
            String what =
                    e.errno() == Errno.EPERM
                            ? "run with CAP_SYS_ADMIN, as physical addresses are needed"
                            : PhysicalMemory.lacking(
                                            Path.of("/"), bytes / PhysicalMemory.PAGE_BYTES)
                                    + ", or lower coherentMebibytes and bounceMebibytes of"
                                    + " virtio.transport.pci";
            throw new VirtioException("%s: %s: %s".formatted(where, e.getMessage(), what), e);
        }
        List<PhysicalMemory.Extent> extents = memory.extents();
        RegionPool[] pools = new RegionPool[extents.size()];
        for (int i = 0; i < pools.length; i++) {
            PhysicalMemory.Extent extent = extents.get(i);
            pools[i] = new RegionPool(extent.segment(), extent.physicalAddress());
        }
        return new VfioMemory(memory, group, 0, bytes, pools);
    }

    /**
     * No device reaches the memory any more, which stays for whoever has some of it; to be called
     * when the device is closed.
     */
    synchronized void cutOff() {
        if (!cutOff && group.translates()) {
            try {
                group.unmap(iova, bytes);
            } catch (LinuxException e) {
                LOG.log(Level.WARNING, "unmapping 0x{0}: {1}", Long.toHexString(iova), e);
            }
        }
        cutOff = true;
    }

    @Override
    protected void unmap(RegionPool region, int left) {
        if (left > 0) {
            return;
        }
        cutOff();
        try {
            memory.close();
        } catch (Exception e) {
            LOG.log(Level.WARNING, "memory of a device", e);
        }
    }
}
