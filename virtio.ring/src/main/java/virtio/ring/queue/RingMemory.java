package virtio.ring.queue;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import virtio.linux.Memory;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * Little-endian loads and stores by native address.
 *
 * <p>Nothing here is checked: whoever computes an address from what the other end wrote has checked
 * it before.
 */
final class RingMemory {
    private static final MemorySegment ALL = Memory.ALL;

    private static final ValueLayout.OfShort LE16 =
            JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfInt LE32 =
            JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong LE64 =
            JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    /** For what both ends read and write at once; needs the alignment that the layouts promise. */
    private static final VarHandle SHARED16 =
            JAVA_SHORT.withOrder(ByteOrder.LITTLE_ENDIAN).varHandle().withInvokeExactBehavior();

    private static final VarHandle SHARED32 =
            JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN).varHandle().withInvokeExactBehavior();
    private static final VarHandle SHARED64 =
            JAVA_LONG.withOrder(ByteOrder.LITTLE_ENDIAN).varHandle().withInvokeExactBehavior();

    private RingMemory() {}

    static int get8(long address) {
        return ALL.get(JAVA_BYTE, address) & 0xFF;
    }

    static int get16(long address) {
        return ALL.get(LE16, address) & 0xFFFF;
    }

    static int get32(long address) {
        return ALL.get(LE32, address);
    }

    static long get64(long address) {
        return ALL.get(LE64, address);
    }

    static void set8(long address, int value) {
        ALL.set(JAVA_BYTE, address, (byte) value);
    }

    static void set16(long address, int value) {
        ALL.set(LE16, address, (short) value);
    }

    static void set64(long address, long value) {
        ALL.set(LE64, address, value);
    }

    static int getAcquire16(long address) {
        return (short) SHARED16.getAcquire(ALL, address) & 0xFFFF;
    }

    static int getOpaque16(long address) {
        return (short) SHARED16.getOpaque(ALL, address) & 0xFFFF;
    }

    // A fence and a plain store instead of an ordered one: where a peer has cut off the file behind
    // the memory, an interpreted ordered 16-bit store ends the JVM (25, x86-64), this one throws.

    static void setRelease16(long address, int value) {
        VarHandle.releaseFence();
        SHARED16.set(ALL, address, (short) value);
    }

    /** For stores that a fence follows, or that are no more than a hint. */
    static void setOpaque16(long address, int value) {
        SHARED16.set(ALL, address, (short) value);
    }

    static int getOpaque32(long address) {
        return (int) SHARED32.getOpaque(ALL, address);
    }

    static void setOpaque32(long address, int value) {
        SHARED32.setOpaque(ALL, address, value);
    }

    static long getAcquire64(long address) {
        return (long) SHARED64.getAcquire(ALL, address);
    }

    static void setRelease64(long address, long value) {
        SHARED64.setRelease(ALL, address, value);
    }

    static void copy(long from, MemorySegment into, long intoOffset, long length) {
        MemorySegment.copy(ALL, from, into, intoOffset, length);
    }

    static void copy(MemorySegment from, long fromOffset, long into, long length) {
        MemorySegment.copy(from, fromOffset, ALL, into, length);
    }

    static MemorySegment slice(long address, long length) {
        return ALL.asSlice(address, length);
    }
}
