package virtio.device.net;

import virtio.api.map.CoherentMemory;
import virtio.api.net.HashType;
import virtio.api.net.InternetChecksum;
import virtio.api.net.NetHeader;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * A slot of a {@link PacketPool}. The header lies right before the frame, so that one descriptor
 * takes both:
 *
 * <pre>
 * 0      HEADROOM - header     HEADROOM                     slot's end
 * | free | virtio_net_hdr      | frame ...                  |
 * </pre>
 */
final class Packet implements PacketBuffer {
    static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    static final ValueLayout.OfInt INT =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfShort CHECKSUM =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);

    /** The first 8 bytes of a header that says nothing. */
    static final long PLAIN = 0;

    /** Bits of {@link #head} that say that there is something to segment. */
    static final long SEGMENTED = 0xFFL << 8;

    /** In the pool. */
    static final byte FREE = 0;

    /** The consumer's. */
    static final byte HELD = 1;

    /** The device's. */
    static final byte POSTED = 2;

    /** Received, and not collected by the consumer yet. */
    static final byte PENDING = 3;

    /** The consumer's, in a burst that is being given back or sent. */
    static final byte CLAIMED = 4;

    private static final int UDP_BYTES = 8;
    private static final int TCP_LEAST = 20;
    private static final int TCP_OFFSET = 12;
    private static final long OFFLOADS = (long) NetHeader.F_NEEDS_CSUM | SEGMENTED;

    final PacketPool pool;
    final int id;
    final MemorySegment segment;

    /** Where the slot lies in the pool's memory. */
    final long at;

    /** Where the device sees the slot's first byte. */
    final long handle;

    int offset;
    int length;
    Packet next;

    /** flags, gso_type, hdr_len, gso_size and csum_start as in the header. */
    long head;

    int csumOffset;
    int hash;

    /** What was hashed, as in the header. */
    int hashReport;

    /** Whose it is. */
    byte state;

    Packet(PacketPool pool, int id, CoherentMemory memory) {
        this.pool = pool;
        this.id = id;
        at = (long) id * PacketPool.SLOT_BYTES;
        segment = memory.segment().asSlice(at, PacketPool.SLOT_BYTES);
        handle = memory.mapHandle() + at;
    }

    @Override
    public MemorySegment segment() {
        return segment;
    }

    @Override
    public int offset() {
        return offset;
    }

    @Override
    public int length() {
        return length;
    }

    @Override
    public int frameLength() {
        int total = length;
        for (Packet p = next; p != null; p = p.next) {
            total += p.length;
        }
        return total;
    }

    @Override
    public void frame(int offset, int length) {
        if (offset < HEADROOM - NetHeader.HASH_BYTES
                || length < 0
                || length > segment.byteSize() - offset) {
            throw new IllegalArgumentException(
                    "frame of %d bytes at %d, the buffer has room from %d to %d"
                            .formatted(
                                    length,
                                    offset,
                                    HEADROOM - NetHeader.HASH_BYTES,
                                    segment.byteSize()));
        }
        this.offset = offset;
        this.length = length;
    }

    @Override
    public PacketBuffer next() {
        return next;
    }

    @Override
    public void chain(PacketBuffer next) {
        this.next = (Packet) next;
    }

    @Override
    public void copyTo(int from, MemorySegment into, long intoOffset, int count) {
        int skip = from;
        int done = 0;
        for (Packet p = this; p != null && done < count; p = p.next) {
            if (skip >= p.length) {
                skip -= p.length;
                continue;
            }
            int part = Math.min(count - done, p.length - skip);
            MemorySegment.copy(p.segment, p.offset + skip, into, intoOffset + done, part);
            done += part;
            skip = 0;
        }
        if (done < count) {
            throw new IndexOutOfBoundsException(
                    "%d bytes at %d of a frame of %d bytes".formatted(count, from, frameLength()));
        }
    }

    @Override
    public void clearOffloads() {
        head = PLAIN;
        csumOffset = 0;
    }

    @Override
    public boolean needsChecksum() {
        return (head & NetHeader.F_NEEDS_CSUM) != 0;
    }

    @Override
    public boolean checksumValid() {
        return (head & NetHeader.F_DATA_VALID) != 0;
    }

    @Override
    public int checksumStart() {
        return (int) (head >>> 8 * NetHeader.CSUM_START) & 0xFFFF;
    }

    @Override
    public int checksumOffset() {
        return csumOffset;
    }

    @Override
    public void requestChecksum(int start, int offset) {
        if (start < 0 || start > 0xFFFF || offset < 0 || offset > 0xFFFF) {
            throw new IllegalArgumentException(
                    "checksum at %d from %d, limits are 0 and 65535".formatted(offset, start));
        }
        head =
                head & 0xFFFF_FFFF_FF00L
                        | NetHeader.F_NEEDS_CSUM
                        | (long) start << 8 * NetHeader.CSUM_START;
        csumOffset = offset;
    }

    @Override
    public void completeChecksum() {
        if (!needsChecksum()) {
            return;
        }
        int start = checksumStart();
        int field = start + csumOffset;
        checkChecksum();
        long sum = 0;
        int skip = start;
        boolean odd = false;
        for (Packet p = this; p != null; p = p.next) {
            int part = Math.max(0, p.length - skip);
            if (part > 0) {
                long piece = InternetChecksum.sum(p.segment, p.offset + skip, part, 0);
                int folded = InternetChecksum.fold(piece);
                // Behind an odd number of bytes high and low are exchanged (RFC 1071 2.B).
                sum += odd ? Short.reverseBytes((short) folded) & 0xFFFF : folded;
                odd ^= (part & 1) != 0;
            }
            skip = Math.max(0, skip - p.length);
        }
        int checksum = InternetChecksum.complement(sum);
        set8(field, checksum >>> 8);
        set8(field + 1, checksum);
        clearOffloads();
    }

    private void set8(int at, int value) {
        int skip = at;
        Packet p = this;
        while (skip >= p.length) {
            skip -= p.length;
            p = p.next;
        }
        p.segment.set(ValueLayout.JAVA_BYTE, p.offset + skip, (byte) value);
    }

    /**
     * Bytes of all headers of a frame that is to be segmented, the transport's included.
     *
     * @throws IllegalArgumentException when the frame does not have them
     */
    int headers() {
        int start = checksumStart();
        int total = frameLength();
        boolean udp = gsoType() == NetHeader.GSO_UDP_L4;
        int bytes = udp ? UDP_BYTES : TCP_LEAST;
        if (!udp && start + bytes <= total) {
            bytes = Math.max(bytes, (get8(start + TCP_OFFSET) >>> 4) * Integer.BYTES);
        }
        if (start + bytes > total) {
            throw new IllegalArgumentException(
                    "headers of %d bytes in a frame of %d".formatted(start + bytes, total));
        }
        return start + bytes;
    }

    private int get8(int at) {
        int skip = at;
        Packet p = this;
        while (skip >= p.length) {
            skip -= p.length;
            p = p.next;
        }
        return p.segment.get(ValueLayout.JAVA_BYTE, p.offset + skip) & 0xFF;
    }

    /** Throws when the checksum to fill in lies beyond the frame. */
    void checkChecksum() {
        int total = frameLength();
        if (checksumStart() + csumOffset + Short.BYTES > total) {
            throw new IllegalArgumentException(
                    "checksum at %d from %d in a frame of %d bytes"
                            .formatted(csumOffset, checksumStart(), total));
        }
    }

    @Override
    public int gsoType() {
        return (int) (head >>> 8) & 0xFF & ~NetHeader.GSO_ECN;
    }

    @Override
    public boolean gsoEcn() {
        return (head >>> 8 & NetHeader.GSO_ECN) != 0;
    }

    @Override
    public int gsoSize() {
        return (int) (head >>> 8 * NetHeader.GSO_SIZE) & 0xFFFF;
    }

    @Override
    public int headerLength() {
        return (int) (head >>> 8 * NetHeader.HDR_LEN) & 0xFFFF;
    }

    @Override
    public void requestSegmentation(int type, int size, int headerLength) {
        if (type < 0 || type > 0xFF || size < 1 || size > 0xFFFF || headerLength >>> 16 != 0) {
            throw new IllegalArgumentException(
                    "segmentation of type %d into %d bytes behind headers of %d"
                            .formatted(type, size, headerLength));
        }
        head =
                head & 0xFFFF_0000_0000_00FFL
                        | (long) type << 8
                        | (long) headerLength << 8 * NetHeader.HDR_LEN
                        | (long) size << 8 * NetHeader.GSO_SIZE;
    }

    @Override
    public int hash() {
        return hash;
    }

    @Override
    public HashType hashType() {
        return HashType.ofReport(hashReport);
    }

    /** Whether there is nothing to offload. */
    boolean plain() {
        return (head & OFFLOADS) == 0;
    }

    /** As the consumer gets it: empty. */
    void hand() {
        offset = HEADROOM;
        length = 0;
        next = null;
        head = PLAIN;
        csumOffset = 0;
        hash = 0;
        hashReport = 0;
        state = HELD;
    }

    /** Makes a received frame the consumer's; its bytes. */
    int hold() {
        int bytes = 0;
        for (Packet p = this; p != null; p = p.next) {
            p.state = HELD;
            bytes += p.length;
        }
        return bytes;
    }

    /** The 16 bits of a frame at an offset of this buffer, as the network orders them. */
    int get16(int at) {
        return segment.get(CHECKSUM, offset + at) & 0xFFFF;
    }

    @Override
    public String toString() {
        return "buffer %d, %d bytes at %d".formatted(id, length, offset);
    }
}
