package virtio.transport.pci;

/**
 * Offsets and values in PCI configuration space and in the structures that its capabilities point
 * at (virtio 4.1 Virtio Over PCI Bus, PCI 3.0 chapter 6), little-endian all of them.
 *
 * <pre>
 * configuration space: 0x00 header | 0x34 first capability | 0x40 capabilities
 * common:  0 features | 16 configuration vector | 20 status | 22 queue | 32 queue areas | 58 reset
 * </pre>
 */
final class PciRegisters {
    /** Bytes of configuration space that capabilities of a conventional function lie in. */
    static final int CONFIG_BYTES = 256;

    /** R 16: {@link #VENDOR}. */
    static final int VENDOR_ID = 0x00;

    /** Vendor of every virtio function (4.1.2). */
    static final int VENDOR = 0x1af4;

    /** R 16: a device type from {@link #MODERN_FIRST}, or a transitional id. */
    static final int DEVICE_ID = 0x02;

    /** Lowest device id of a transitional or legacy function. */
    static final int TRANSITIONAL_FIRST = 0x1000;

    /** Device id of device type 0. */
    static final int MODERN_FIRST = 0x1040;

    /** Highest device id of a virtio function. */
    static final int MODERN_LAST = 0x107f;

    /** RW 16: bits below. */
    static final int COMMAND = 0x04;

    /** Bit of {@link #COMMAND}: BARs answer. */
    static final int COMMAND_MEMORY = 1 << 1;

    /** Bit of {@link #COMMAND}: the function may access memory and send messages. */
    static final int COMMAND_BUS_MASTER = 1 << 2;

    /** Bit of {@link #COMMAND}: the interrupt pin stays quiet. */
    static final int COMMAND_INTX_DISABLE = 1 << 10;

    /** R 16: bits below. */
    static final int STATUS = 0x06;

    /** Bit of {@link #STATUS}: the interrupt pin is asserted. */
    static final int STATUS_INTERRUPT = 1 << 3;

    /** Bit of {@link #STATUS}: there are capabilities. */
    static final int STATUS_CAPABILITIES = 1 << 4;

    /** R 8: 1 or higher for modern functions. */
    static final int REVISION_ID = 0x08;

    /** R 24: class, subclass and interface. */
    static final int CLASS_CODE = 0x09;

    /** RW 32, six of them. */
    static final int BAR_0 = 0x10;

    /** How many {@link #BAR_0} there are; higher numbers in a capability are reserved (4.1.4). */
    static final int BARS = 6;

    /** R 16. */
    static final int SUBSYSTEM_VENDOR_ID = 0x2c;

    /** R 16: for transitional functions the device type. */
    static final int SUBSYSTEM_ID = 0x2e;

    /** R 8: offset of the first capability. */
    static final int CAPABILITIES = 0x34;

    /** R 8: 1 for INTA#, 0 for none. */
    static final int INTERRUPT_PIN = 0x3d;

    /** Lowest offset that a capability can have. */
    static final int FIRST_CAPABILITY = 0x40;

    /** Capability id: vendor-specific, as virtio's are. */
    static final int CAP_VENDOR = 0x09;

    /** Capability id: MSI-X. */
    static final int CAP_MSIX = 0x11;

    /** In an MSI-X capability, RW 16: table size less one in bits 0 to 10, and the bits below. */
    static final int MSIX_CONTROL = 2;

    /** Bits of {@link #MSIX_CONTROL} that say how many vectors there are, less one. */
    static final int MSIX_SIZE = 0x7ff;

    /** Bit of {@link #MSIX_CONTROL}: all vectors are masked. */
    static final int MSIX_MASK_ALL = 1 << 14;

    /** Bit of {@link #MSIX_CONTROL}: messages instead of the pin. */
    static final int MSIX_ENABLE = 1 << 15;

    /** In an MSI-X capability, R 32: BAR in bits 0 to 2, offset of the table in the rest. */
    static final int MSIX_TABLE = 4;

    /** In an MSI-X capability, R 32: the same for the pending bits. */
    static final int MSIX_PENDING = 8;

    /** Bytes of an MSI-X table entry: address 8, data 4, control 4. */
    static final int MSIX_ENTRY_BYTES = 16;

    /** In a virtio capability, R 8: its length, all of it. */
    static final int CAP_LEN = 2;

    /** In a virtio capability, R 8: which structure, of the types below. */
    static final int CAP_TYPE = 3;

    /** In a virtio capability, R 8. */
    static final int CAP_BAR = 4;

    /** In a virtio capability, R 8: tells structures of one type apart. */
    static final int CAP_ID = 5;

    /** In a virtio capability, R 32: offset in the BAR. */
    static final int CAP_OFFSET = 8;

    /** In a virtio capability, R 32: bytes of the structure. */
    static final int CAP_LENGTH = 12;

    /** Bytes of the part that all virtio capabilities have. */
    static final int CAP_BYTES = 16;

    /** In a notification capability, R 32: bytes per step of {@link #QUEUE_NOTIFY_OFF}. */
    static final int NOTIFY_OFF_MULTIPLIER = 16;

    /** In a shared memory capability, R 32: the upper half of {@link #CAP_OFFSET}. */
    static final int CAP_OFFSET_HIGH = 16;

    /** In a shared memory capability, R 32: the upper half of {@link #CAP_LENGTH}. */
    static final int CAP_LENGTH_HIGH = 20;

    /** Bytes of a shared memory capability. */
    static final int CAP64_BYTES = 24;

    /** In a configuration access capability, RW 32: a window on the BAR. */
    static final int PCI_CFG_DATA = 16;

    /** Type: common configuration (4.1.4.3). */
    static final int TYPE_COMMON = 1;

    /** Type: notifications (4.1.4.4). */
    static final int TYPE_NOTIFY = 2;

    /** Type: interrupt status (4.1.4.5). */
    static final int TYPE_ISR = 3;

    /** Type: device-specific configuration (4.1.4.6). */
    static final int TYPE_DEVICE = 4;

    /** Type: access to the BARs by configuration space (4.1.4.9). */
    static final int TYPE_PCI_CFG = 5;

    /** Type: a shared memory region (4.1.4.7). */
    static final int TYPE_SHARED_MEMORY = 8;

    /** RW 32: which 32 bits {@link #DEVICE_FEATURE} shows. */
    static final int DEVICE_FEATURE_SELECT = 0;

    /** R 32: feature bits that the device offers. */
    static final int DEVICE_FEATURE = 4;

    /** RW 32: which 32 bits {@link #DRIVER_FEATURE} shows and sets. */
    static final int DRIVER_FEATURE_SELECT = 8;

    /** RW 32: feature bits that the driver accepts. */
    static final int DRIVER_FEATURE = 12;

    /** RW 16: MSI-X vector of configuration changes, or {@link #NO_VECTOR}. */
    static final int CONFIG_MSIX_VECTOR = 16;

    /** No vector, or one that the device could not map. */
    static final int NO_VECTOR = 0xffff;

    /** R 16: most queues of the device. */
    static final int NUM_QUEUES = 18;

    /** RW 8: the device status field; a written 0 resets. */
    static final int DEVICE_STATUS = 20;

    /** R 8: changes when the configuration does. */
    static final int CONFIG_GENERATION = 21;

    /** RW 16: which queue the registers that follow mean. */
    static final int QUEUE_SELECT = 22;

    /** RW 16: after a reset the most descriptors of the queue, 0 when there is no such queue. */
    static final int QUEUE_SIZE = 24;

    /** RW 16: MSI-X vector of the queue, or {@link #NO_VECTOR}. */
    static final int QUEUE_MSIX_VECTOR = 26;

    /** RW 16: 1 while the device may use the queue. */
    static final int QUEUE_ENABLE = 28;

    /** R 16: where to notify the queue, in steps of {@link #NOTIFY_OFF_MULTIPLIER}. */
    static final int QUEUE_NOTIFY_OFF = 30;

    /** RW 64: address of the descriptor area. */
    static final int QUEUE_DESC = 32;

    /** RW 64: address of the driver area. */
    static final int QUEUE_DRIVER = 40;

    /** RW 64: address of the device area. */
    static final int QUEUE_DEVICE = 48;

    /** Bytes of the structure that every device has. */
    static final int COMMON_BYTES = 56;

    /** RW 16: a written 1 resets the queue; 1 while that goes on. */
    static final int QUEUE_RESET = 58;

    /** Bytes of the structure that devices with RING_RESET have. */
    static final int COMMON_RESET_BYTES = 60;

    /** Bit of the interrupt status: the device used a buffer of some queue. */
    static final int ISR_QUEUE = 1;

    /** Bit of the interrupt status: the configuration changed. */
    static final int ISR_CONFIG = 2;

    /** Feature words that the select registers are used for here: 128 bits. */
    static final int FEATURE_WORDS = 4;

    private PciRegisters() {}
}
