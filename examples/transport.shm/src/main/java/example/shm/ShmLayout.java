package example.shm;

/**
 * Layout of the file, little-endian.
 *
 * <pre>
 * 0x0000 | what the file is       | written before the file appears under its name
 * 0x1000 | the device's registers | written by the device end
 * 0x2000 | configuration space    | written by the device end
 * 0x3000 | interrupts, a line for each queue | written by the device end
 * 0x4000 | who has the data regions          | written under the file's lock, and to give back
 * 0x5000 | the driver's registers | written by the driver end
 * 0x6000 | payload of a request   | written by the driver end
 * 0x7000 | doorbells, a line for each queue  | written by the driver end
 * 0x8000 | data region 0 | data region 1 | ...
 * </pre>
 *
 * <p>Every word has one writer at a time, so that loads and stores are enough: a notification is a
 * counter that its writer increments and its reader compares with what it has seen.
 */
final class ShmLayout {
    static final int PAGE_BYTES = 4096;

    /** Bytes before the data regions. */
    static final int REGISTER_BYTES = 0x8000;

    /** "VSHM". */
    static final int MAGIC = 0x4d485356;

    static final int VERSION = 1;

    /** Most queues: a line of doorbells and of interrupts each. */
    static final int MAX_QUEUES = 64;

    /** Most descriptors of a queue (virtio 2.7). */
    static final int MAX_QUEUE_SIZE_LIMIT = 32768;

    static final int MAX_CONFIG_BYTES = PAGE_BYTES;

    /** A queue's doorbell and its interrupt word have a cache line each. */
    static final int LINE_BYTES = 64;

    /** Drivers whose consumers still hold memory, and the one that drives. */
    static final int REGIONS = 8;

    /** Feature words of 64 bits (virtio 2.2): bits 0 to 127. */
    static final int FEATURE_WORDS = 2;

    // What the file is.
    static final int MAGIC_AT = 0x0000;
    static final int VERSION_AT = 0x0004;
    static final int DEVICE_TYPE = 0x0008;
    static final int QUEUE_COUNT = 0x000c;
    static final int MAX_QUEUE_SIZE = 0x0010;
    static final int CONFIG_BYTES = 0x0014;
    static final int REGION_BYTES = 0x0018;

    /** The device end's process: its id, and when it started, both 64 bits. */
    static final int DEVICE_OWNER = 0x0020;

    static final int DEVICE_FEATURES = 0x0030;

    // The device's registers.
    /** The device status field (virtio 2.1). */
    static final int STATUS = 0x1000;

    /** Odd while the configuration is being changed (virtio 2.5.3). */
    static final int CONFIG_GENERATION = 0x1004;

    static final int CONFIG_INTERRUPT = 0x1008;

    /** Not 0 when the device was taken back. */
    static final int WITHDRAWN = 0x100c;

    /** The request that was answered last, and its answer: 0, or that it was refused. */
    static final int ANSWERED = 0x1010;

    static final int ANSWER = 0x1014;

    /** Why it was refused: bytes of UTF-8, and the text. */
    static final int REASON_BYTES = 0x1018;

    static final int REASON = 0x1100;
    static final int MAX_REASON_BYTES = 0x0f00;

    /** The attachment that the device has ended, see {@link #ATTACHMENT}. */
    static final int ENDED = 0x101c;

    static final int CONFIG = 0x2000;
    static final int INTERRUPTS = 0x3000;

    /** By region: its owner's process, as {@link #DEVICE_OWNER}. */
    static final int REGION_OWNERS = 0x4000;

    // The driver's registers; these three are written under the file's lock.
    /** Counts drivers: one drives, or did, while this and {@link #ENDED} differ. */
    static final int ATTACHMENT = 0x5000;

    /** The region of the driver. */
    static final int REGION = 0x5004;

    static final int DRIVER_OWNER = 0x5008;

    /** The attachment whose driver has let go. */
    static final int LEFT = 0x5018;

    /** Counts requests; the words behind it are what is requested. */
    static final int REQUEST = 0x5040;

    static final int OPERATION = 0x5044;
    static final int ARGUMENT = 0x5048;
    static final int QUEUE_SIZE = 0x504c;
    static final int DESCRIPTOR_AREA = 0x5050;
    static final int DRIVER_AREA = 0x5058;
    static final int DEVICE_AREA = 0x5060;
    static final int DRIVER_FEATURES = 0x5080;

    static final int PAYLOAD = 0x6000;
    static final int DOORBELLS = 0x7000;

    // Operations, each with its ARGUMENT.
    /** The status to set, 0 to reset. */
    static final int SET_STATUS = 1;

    /** A queue; its size and areas are in the words behind. */
    static final int START_QUEUE = 2;

    /** A queue. */
    static final int STOP_QUEUE = 3;

    /** The offset; the bytes are in the payload, their number in QUEUE_SIZE. */
    static final int WRITE_CONFIG = 4;

    private ShmLayout() {}
}
