package virtio.backend.net;

import virtio.api.net.InternetChecksum;
import virtio.api.net.NetConfig;
import virtio.api.net.NetHeader;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * One frame behind its header of {@value NetHeader#BYTES} bytes, in memory of our own: what is
 * checked here cannot change any more. Made once and reused.
 */
final class Frame {
    static final int HEADER = NetHeader.BYTES;
    static final int MAX_BYTES = HEADER + NetHeader.MAX_FRAME_BYTES;
    private static final int VLAN = 0x8100;
    private static final ValueLayout.OfShort LITTLE16 =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfShort BIG16 =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
    private static final ValueLayout.OfInt BIG32 =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
    private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

    /** A few bytes more, so that a longer one is noticed. */
    final MemorySegment memory = Arena.ofAuto().allocate(MAX_BYTES + 64);

    /** Bytes of the frame, the header not included. */
    int length;

    int flags() {
        return memory.get(BYTE, NetHeader.FLAGS) & 0xFF;
    }

    boolean needsChecksum() {
        return (flags() & NetHeader.F_NEEDS_CSUM) != 0;
    }

    /** Without ECN. */
    int gsoType() {
        return memory.get(BYTE, NetHeader.GSO_TYPE) & 0xFF & ~NetHeader.GSO_ECN;
    }

    boolean ecn() {
        return (memory.get(BYTE, NetHeader.GSO_TYPE) & NetHeader.GSO_ECN) != 0;
    }

    int header16(int field) {
        return memory.get(LITTLE16, field) & 0xFFFF;
    }

    /** Makes the header say nothing, but that the frame is in one buffer. */
    void plain() {
        memory.asSlice(0, HEADER).fill((byte) 0);
        memory.set(LITTLE16, NetHeader.NUM_BUFFERS, (short) 1);
    }

    /** Says that the checksum is still partial, and takes everything else off. */
    void partial(int start, int offset) {
        plain();
        memory.set(BYTE, NetHeader.FLAGS, (byte) NetHeader.F_NEEDS_CSUM);
        memory.set(LITTLE16, NetHeader.CSUM_START, (short) start);
        memory.set(LITTLE16, NetHeader.CSUM_OFFSET, (short) offset);
    }

    int get8(int at) {
        return memory.get(BYTE, HEADER + at) & 0xFF;
    }

    int get16(int at) {
        return memory.get(BIG16, HEADER + at) & 0xFFFF;
    }

    int get32(int at) {
        return memory.get(BIG32, HEADER + at);
    }

    void set8(int at, int value) {
        memory.set(BYTE, HEADER + at, (byte) value);
    }

    void set16(int at, int value) {
        memory.set(BIG16, HEADER + at, (short) value);
    }

    void set32(int at, int value) {
        memory.set(BIG32, HEADER + at, value);
    }

    long destination() {
        return (long) get32(0) << 16 & 0xFFFF_FFFF_0000L | get16(4);
    }

    long source() {
        return (long) get32(6) << 16 & 0xFFFF_FFFF_0000L | get16(10);
    }

    /** The VLAN, or -1 when there is no tag. */
    int vlan() {
        return length >= NetConfig.ETHERNET_BYTES + NetConfig.VLAN_BYTES && get16(12) == VLAN
                ? get16(14) & 0xFFF
                : -1;
    }

    /** Bytes before the payload: a VLAN tag counts to them. */
    int ethernetBytes() {
        return NetConfig.ETHERNET_BYTES + (vlan() < 0 ? 0 : NetConfig.VLAN_BYTES);
    }

    /** Adds up the bytes of the frame from an offset. */
    long sum(int from, int bytes, long before) {
        return InternetChecksum.sum(memory, HEADER + from, bytes, before);
    }

    /** Fills in a partial checksum and says so. */
    void completeChecksum() {
        int start = header16(NetHeader.CSUM_START);
        int field = start + header16(NetHeader.CSUM_OFFSET);
        set16(field, InternetChecksum.complement(sum(start, length - start, 0)));
        plain();
    }

    void copyFrom(Frame other) {
        length = other.length;
        MemorySegment.copy(other.memory, 0, memory, 0, HEADER + (long) length);
    }

    /**
     * Why the frame is not acceptable as a driver or the kernel has sent it; null when it is. What
     * is not to be looked at is cleared.
     */
    String bad() {
        if (length < NetConfig.ETHERNET_BYTES || length > NetHeader.MAX_FRAME_BYTES) {
            return "frame of %d bytes, limits are %d and %d"
                    .formatted(length, NetConfig.ETHERNET_BYTES, NetHeader.MAX_FRAME_BYTES);
        }
        if (!needsChecksum()) {
            // Then the other fields mean nothing (DEV-NET-016).
            int gso = gsoType();
            plain();
            return gso == NetHeader.GSO_NONE
                    ? null
                    : "segmentation type %d without a checksum to fill in".formatted(gso);
        }
        int start = header16(NetHeader.CSUM_START);
        int offset = header16(NetHeader.CSUM_OFFSET);
        if (start + offset + Short.BYTES > length) {
            return "checksum at %d from %d in a frame of %d bytes".formatted(offset, start, length);
        }
        int gso = gsoType();
        if (gso == NetHeader.GSO_NONE) {
            partial(start, offset);
            return null;
        }
        String wrong = Segmentation.bad(this);
        if (wrong == null) {
            // Flags without a meaning go no further, and headers are as long as they are.
            memory.set(BYTE, NetHeader.FLAGS, (byte) NetHeader.F_NEEDS_CSUM);
            memory.set(LITTLE16, NetHeader.HDR_LEN, (short) Segmentation.headers(this));
            memory.set(LITTLE16, NetHeader.NUM_BUFFERS, (short) 1);
        }
        return wrong;
    }
}
