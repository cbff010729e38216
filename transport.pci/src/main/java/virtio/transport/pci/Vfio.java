package virtio.transport.pci;

/**
 * Requests, flags and structure offsets of VFIO (include/uapi/linux/vfio.h), as far as a PCI
 * function needs them; the same on all machines.
 */
final class Vfio {
    /** Container, of {@link #TYPE1_V2} and {@link #NOIOMMU}: 1 when it has that kind. */
    static final int CHECK_EXTENSION = 0x3b65;

    /** Container: chooses its kind, once it has a group. */
    static final int SET_IOMMU = 0x3b66;

    /** Group, {@code u32 argsz, flags}. */
    static final int GROUP_GET_STATUS = 0x3b67;

    /** Group, {@code s32 container}. */
    static final int GROUP_SET_CONTAINER = 0x3b68;

    /** Group, the function's address as a string; a descriptor. */
    static final int GROUP_GET_DEVICE_FD = 0x3b6a;

    /** Device, {@code u32 argsz, flags, num_regions, num_irqs}. */
    static final int DEVICE_GET_INFO = 0x3b6b;

    /** Device, {@code u32 argsz, flags, index, cap_offset; u64 size, offset}. */
    static final int DEVICE_GET_REGION_INFO = 0x3b6c;

    /** Device, {@code u32 argsz, flags, index, count}. */
    static final int DEVICE_GET_IRQ_INFO = 0x3b6d;

    /** Device, {@code u32 argsz, flags, index, start, count; s32 eventfd[count]}. */
    static final int DEVICE_SET_IRQS = 0x3b6e;

    /** Device: function-level reset. */
    static final int DEVICE_RESET = 0x3b6f;

    /** Container, {@code u32 argsz, flags; u64 iova_pgsizes; u32 cap_offset}. */
    static final int IOMMU_GET_INFO = 0x3b70;

    /** Container, {@code u32 argsz, flags; u64 vaddr, iova, size}. */
    static final int IOMMU_MAP_DMA = 0x3b71;

    /** Container, {@code u32 argsz, flags; u64 iova, size}. */
    static final int IOMMU_UNMAP_DMA = 0x3b72;

    /** Kind of container: an IOMMU with mappings that are unmapped as they were mapped. */
    static final int TYPE1_V2 = 3;

    /** Kind of container: none. */
    static final int NOIOMMU = 8;

    /** Flag of a group: all of its devices are VFIO's, or nobody's. */
    static final int GROUP_VIABLE = 1;

    /** Flag of a device: it can be reset. */
    static final int DEVICE_CAN_RESET = 1;

    /** Flag of a region: it can be mapped. */
    static final int REGION_MMAP = 1 << 2;

    /** Region of a PCI device: its configuration space; 0 to 5 are its BARs. */
    static final int CONFIG_REGION = 7;

    /** Interrupt of a PCI device: the pin. */
    static final int IRQ_PIN = 0;

    /** Interrupts of a PCI device: MSI-X. */
    static final int IRQ_MSIX = 2;

    /** Interrupt of a PCI device: the bus has seen an error. */
    static final int IRQ_ERROR = 3;

    /** Interrupt of a PCI device: the kernel wants it back. */
    static final int IRQ_REQUEST = 4;

    /** Flags of DEVICE_SET_IRQS: no data, trigger; with a count of 0 this disables. */
    static final int DISABLE = 1 | 1 << 5;

    /** Flags of DEVICE_SET_IRQS: eventfds to trigger. */
    static final int TRIGGER_EVENTFD = 1 << 2 | 1 << 5;

    /** Flags of DEVICE_SET_IRQS: no data, unmask. */
    static final int UNMASK = 1 | 1 << 4;

    /** Flag of IOMMU_GET_INFO: there are capabilities. */
    static final int INFO_CAPS = 1 << 1;

    /** Capability, {@code u32 nr_iovas, reserved; {u64 start, end}[nr_iovas]} behind its header. */
    static final int CAP_IOVA_RANGE = 1;

    /** Flags of IOMMU_MAP_DMA: the device may read and write. */
    static final int READ_WRITE = 3;

    private Vfio() {}
}
