package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import java.lang.foreign.MemorySegment;

/**
 * A frame, or a piece of one, in a pooled buffer, with its offload metadata (virtio 5.1.6). Not
 * thread-safe.
 *
 * <p>A frame that is longer than a buffer goes on in {@link #next}; metadata is that of the first
 * buffer. Up to {@value #HEADROOM} bytes before the frame are overwritten when it is sent.
 */
@ProviderType
public interface PacketBuffer {
    /** Where a frame begins in an allocated buffer, and must not begin before. */
    int HEADROOM = 64;

    /** The whole buffer; the frame lies at {@link #offset}. */
    MemorySegment segment();

    /** Where the frame begins, in bytes. */
    int offset();

    /** Bytes of the frame in this buffer. */
    int length();

    /** Bytes of the frame in this buffer and those chained to it. */
    int frameLength();

    /** Says where the frame lies, before it is sent. */
    void frame(int offset, int length);

    /** Where the frame goes on; null at its end. */
    PacketBuffer next();

    /** Says where the frame goes on; the other buffer then belongs to this one. */
    void chain(PacketBuffer next);

    /** Copies bytes of the frame, chained buffers included, from an offset in it. */
    void copyTo(int from, MemorySegment into, long intoOffset, int length);

    /** Takes all offload metadata off. */
    void clearOffloads();

    /** Whether the checksum from {@link #checksumStart} is yet to be filled in. */
    boolean needsChecksum();

    /** Whether the device has verified the checksum. */
    boolean checksumValid();

    /** Where checksumming begins, in bytes from the frame's start. */
    int checksumStart();

    /** Where the checksum is stored, in bytes from {@link #checksumStart}. */
    int checksumOffset();

    /**
     * Asks for a checksum to be filled in: the sum from {@code start} to the frame's end. The field
     * holds the sum of the pseudo header. A device that cannot has it done by the driver.
     *
     * @param start bytes from the frame's start
     * @param offset bytes from {@code start} to the 16-bit field
     */
    void requestChecksum(int start, int offset);

    /** Fills in the checksum that {@link #needsChecksum} speaks of, if any. */
    void completeChecksum();

    /** {@link NetHeader#GSO_NONE} or how the frame is to be, or was not, segmented, without ECN. */
    int gsoType();

    /** Payload bytes of a segment. */
    int gsoSize();

    /** Bytes of all headers as the header says: a hint where it was received. */
    int headerLength();

    /** Whether the frame has congestion notification set and is to be segmented. */
    boolean gsoEcn();

    /**
     * Asks for segmentation; a checksum must be requested as well.
     *
     * @param type {@link NetHeader#GSO_TCPV4}, {@link NetHeader#GSO_TCPV6} or {@link
     *     NetHeader#GSO_UDP_L4}, TCP with {@link NetHeader#GSO_ECN} where the packet has it
     * @param size payload bytes of a segment, 1 or more
     * @param headerLength bytes of all headers, the transport's included; the device is told what
     *     they really are
     */
    void requestSegmentation(int type, int size, int headerLength);

    /**
     * The hash that the device computed as {@link NetDevice#hash} says, with {@link
     * NetFeature#HASH_REPORT}; what it means only {@link #hashType} tells.
     */
    int hash();

    /** What was hashed; null when nothing was. */
    HashType hashType();
}
