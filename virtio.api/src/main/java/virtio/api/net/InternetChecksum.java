package virtio.api.net;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** The ones' complement sum of RFC 1071, over memory; allocates nothing. */
public final class InternetChecksum {
    private static final ValueLayout.OfInt INT =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
    private static final ValueLayout.OfShort SHORT =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
    private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

    private InternetChecksum() {}

    /**
     * Adds bytes to a sum.
     *
     * @param sum what was summed before them, an even number of bytes; 0 at the beginning
     * @return for {@link #fold}, or for the next call
     */
    public static long sum(MemorySegment memory, long offset, long length, long sum) {
        long total = sum;
        long at = offset;
        long end = offset + length;
        for (; at + Integer.BYTES <= end; at += Integer.BYTES) {
            total += memory.get(INT, at) & 0xFFFFFFFFL;
        }
        if (at + Short.BYTES <= end) {
            total += memory.get(SHORT, at) & 0xFFFFL;
            at += Short.BYTES;
        }
        if (at < end) {
            total += (memory.get(BYTE, at) & 0xFFL) << 8;
        }
        return (total & 0xFFFFFFFFL) + (total >>> 32);
    }

    /** The 16-bit sum, not complemented. */
    public static int fold(long sum) {
        long folded = (sum & 0xFFFF) + (sum >>> 16 & 0xFFFF) + (sum >>> 32);
        folded = (folded & 0xFFFF) + (folded >>> 16);
        return (int) ((folded & 0xFFFF) + (folded >>> 16));
    }

    /** The checksum to store for a sum: its complement, and 0xFFFF for 0, which UDP reserves. */
    public static int complement(long sum) {
        int checksum = ~fold(sum) & 0xFFFF;
        return checksum == 0 ? 0xFFFF : checksum;
    }
}
