package virtio.api.block;

/** Byte offsets in {@code struct virtio_blk_config}, little-endian (virtio 5.2.4). */
public final class BlockConfig {
    /** 64 bits: capacity in sectors of 512 bytes. */
    public static final int CAPACITY_SECTORS = 0;

    /** 32 bits: most bytes of a segment, with {@link BlockFeature#SIZE_MAX}. */
    public static final int SIZE_MAX = 8;

    /** 32 bits: most data segments of a request, with {@link BlockFeature#SEG_MAX}. */
    public static final int SEG_MAX = 12;

    /** 32 bits: block size in bytes, with {@link BlockFeature#BLK_SIZE}. */
    public static final int BLK_SIZE = 20;

    /** 8 bits: log2 of logical blocks per physical block, with {@link BlockFeature#TOPOLOGY}. */
    public static final int PHYSICAL_BLOCK_EXP = 24;

    /** 8 bits: alignment offset in logical blocks. */
    public static final int ALIGNMENT_OFFSET = 25;

    /** 16 bits: smallest efficient I/O size in logical blocks. */
    public static final int MIN_IO_SIZE = 26;

    /** 32 bits: optimal sustained I/O size in logical blocks. */
    public static final int OPT_IO_SIZE = 28;

    /** 8 bits: 1 for write-back, with {@link BlockFeature#CONFIG_WCE}. */
    public static final int WRITEBACK = 32;

    /** 16 bits: number of request queues, with {@link BlockFeature#MQ}. */
    public static final int NUM_QUEUES = 34;

    /** 32 bits: most sectors of a discard segment, with {@link BlockFeature#DISCARD}. */
    public static final int MAX_DISCARD_SECTORS = 36;

    /** 32 bits: most segments of a discard request. */
    public static final int MAX_DISCARD_SEG = 40;

    /** 32 bits: alignment of discards in sectors. */
    public static final int DISCARD_SECTOR_ALIGNMENT = 44;

    /** 32 bits: most sectors of a write zeroes segment, with {@link BlockFeature#WRITE_ZEROES}. */
    public static final int MAX_WRITE_ZEROES_SECTORS = 48;

    /** 32 bits: most segments of a write zeroes request. */
    public static final int MAX_WRITE_ZEROES_SEG = 52;

    /** 8 bits: whether write zeroes may unmap. */
    public static final int WRITE_ZEROES_MAY_UNMAP = 56;

    /** Bytes up to and including the write zeroes fields. */
    public static final int BYTES = 60;

    private BlockConfig() {}
}
