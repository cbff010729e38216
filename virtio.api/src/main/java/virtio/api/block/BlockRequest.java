package virtio.api.block;

/**
 * The request format of the block device, {@code struct virtio_blk_req} (virtio 5.2.6).
 *
 * <pre>
 * device reads    0      4          8        16
 *                 | type | reserved | sector | data, or segments of a discard ...
 * device writes   data ... | status (1 byte)
 *
 * segment of discard or write zeroes
 *                 0        8              12      16
 *                 | sector | num_sectors  | flags |
 * </pre>
 */
public final class BlockRequest {
    /** Read. */
    public static final int IN = 0;

    /** Write. */
    public static final int OUT = 1;

    /** Flush the write cache. */
    public static final int FLUSH = 4;

    /** Read the device id string. */
    public static final int GET_ID = 8;

    /** Discard sectors. */
    public static final int DISCARD = 11;

    /** Write zeroes. */
    public static final int WRITE_ZEROES = 13;

    /** Status: done. */
    public static final int S_OK = 0;

    /** Status: device or driver error. */
    public static final int S_IOERR = 1;

    /** Status: request not supported. */
    public static final int S_UNSUPP = 2;

    /** Bytes of a sector, the unit of every sector number. */
    public static final int SECTOR_BYTES = 512;

    /** Bytes of the header the device reads. */
    public static final int HEADER_BYTES = 16;

    /** Offset of the 32-bit type in the header. */
    public static final int TYPE = 0;

    /** Offset of the 64-bit sector in the header. */
    public static final int SECTOR = 8;

    /** Bytes of a segment of discard or write zeroes. */
    public static final int SEGMENT_BYTES = 16;

    /** Offset of the 32-bit sector count in a segment. */
    public static final int SEGMENT_SECTORS = 8;

    /** Offset of the 32-bit flags in a segment. */
    public static final int SEGMENT_FLAGS = 12;

    /** Segment flag: the device may unmap the sectors. */
    public static final int UNMAP = 1;

    /** Bytes of the device id string, zero-padded. */
    public static final int ID_BYTES = 20;

    private BlockRequest() {}
}
