package virtio.transport.mmio;

/**
 * Offsets and values of the registers (virtio 4.2.2 MMIO Device Register Layout), 32 bits wide and
 * little-endian all of them.
 *
 * <pre>
 * 0x000 identity | 0x010 features | 0x030 queue | 0x060 interrupt | 0x070 status | 0x080 queue areas
 * 0x0ac shared memory | 0x0c0 queue reset | 0x0fc config generation | 0x100 configuration space
 * </pre>
 */
final class MmioRegisters {
    /** R: {@link #MAGIC}. */
    static final int MAGIC_VALUE = 0x000;

    /** The letters "virt". */
    static final int MAGIC = 0x74726976;

    /** R: {@link #VERSION_2}. */
    static final int VERSION = 0x004;

    /** Version of the layout that legacy devices have (4.2.4). */
    static final int VERSION_LEGACY = 1;

    /** Version of the layout below. */
    static final int VERSION_2 = 2;

    /** R: the device type; 0 for a window without a device. */
    static final int DEVICE_ID = 0x008;

    /** R: the vendor of the device. */
    static final int VENDOR_ID = 0x00c;

    /** R: 32 feature bits that the device offers, from 32 times {@link #DEVICE_FEATURES_SEL}. */
    static final int DEVICE_FEATURES = 0x010;

    /** W: which word {@link #DEVICE_FEATURES} shows. */
    static final int DEVICE_FEATURES_SEL = 0x014;

    /** W: 32 feature bits that the driver accepts, from 32 times {@link #DRIVER_FEATURES_SEL}. */
    static final int DRIVER_FEATURES = 0x020;

    /** W: which word {@link #DRIVER_FEATURES} sets. */
    static final int DRIVER_FEATURES_SEL = 0x024;

    /** W: which queue the queue registers mean. */
    static final int QUEUE_SEL = 0x030;

    /** R: most descriptors of the queue, 0 when there is no such queue. */
    static final int QUEUE_SIZE_MAX = 0x034;

    /** W: descriptors of the queue. */
    static final int QUEUE_SIZE = 0x038;

    /** RW: 1 while the device may use the queue. */
    static final int QUEUE_READY = 0x044;

    /** W: available buffer notification; a queue number, or what NOTIFICATION_DATA says. */
    static final int QUEUE_NOTIFY = 0x050;

    /** R: what the device has notified of and the driver not acknowledged, of the bits below. */
    static final int INTERRUPT_STATUS = 0x060;

    /** W: bits of {@link #INTERRUPT_STATUS} to clear. */
    static final int INTERRUPT_ACK = 0x064;

    /** Bit of {@link #INTERRUPT_STATUS}: the device used a buffer of some queue. */
    static final int INTERRUPT_USED = 1;

    /** Bit of {@link #INTERRUPT_STATUS}: the configuration changed. */
    static final int INTERRUPT_CONFIG = 2;

    /** RW: the device status field; a written 0 resets. */
    static final int STATUS = 0x070;

    /** W: lower half of the descriptor area's address; its upper half is 4 bytes on. */
    static final int QUEUE_DESC_LOW = 0x080;

    /** W: upper half of the descriptor area's address. */
    static final int QUEUE_DESC_HIGH = 0x084;

    /** W: lower half of the driver area's address. */
    static final int QUEUE_DRIVER_LOW = 0x090;

    /** W: upper half of the driver area's address. */
    static final int QUEUE_DRIVER_HIGH = 0x094;

    /** W: lower half of the device area's address. */
    static final int QUEUE_DEVICE_LOW = 0x0a0;

    /** W: upper half of the device area's address. */
    static final int QUEUE_DEVICE_HIGH = 0x0a4;

    /** W: which shared memory region the four registers that follow mean. */
    static final int SHM_SEL = 0x0ac;

    /** R: lower half of the region's length, all ones in both halves when there is none. */
    static final int SHM_LEN_LOW = 0x0b0;

    /** R: upper half of the region's length. */
    static final int SHM_LEN_HIGH = 0x0b4;

    /** R: lower half of the region's address, all ones in both halves when there is none. */
    static final int SHM_BASE_LOW = 0x0b8;

    /** R: upper half of the region's address. */
    static final int SHM_BASE_HIGH = 0x0bc;

    /** RW: a written 1 resets the queue; 1 while that goes on. */
    static final int QUEUE_RESET = 0x0c0;

    /** R: changes when the configuration does. */
    static final int CONFIG_GENERATION = 0x0fc;

    /** Start of the configuration space, with accesses as wide as its fields. */
    static final int CONFIG = 0x100;

    /** Feature words that the select registers are used for here: 128 bits. */
    static final int FEATURE_WORDS = 4;

    private MmioRegisters() {}
}
