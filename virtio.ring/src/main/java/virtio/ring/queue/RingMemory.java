package virtio.ring.queue;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
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
 * it before. The tests run a second time with {@code -Dvirtio.ring.checked=true}, where every
 * access must be to memory that is mapped at that moment.
 */
final class RingMemory {
    /** What a test asks to have checked: that many bytes at the address are read or written. */
    interface Bounds {
        void check(long address, long length, boolean write);
    }

    /** A constant, so that without it the checks are compiled to nothing. */
    static final boolean CHECKED = Boolean.getBoolean("virtio.ring.checked");

    /** Where {@link #CHECKED}: throws when there is nothing to access; says nothing by itself. */
    static volatile Bounds bounds = (address, length, write) -> {};

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

    /** No address of user space has a bit up here. */
    private static final int SPARE_BITS = 8;

    private RingMemory() {}

    private static void check(long address, long length, boolean write) {
        if (CHECKED) {
            bounds.check(address, length, write);
        }
    }

    /** An address as the fields of a ring keep it, for {@link #address}. */
    static long keep(long address) {
        return address << SPARE_BITS;
    }

    /**
     * The address that was kept. One shift, and the compiler knows that it is neither negative nor
     * near the end of {@link Memory#ALL}: what is accessed at a small offset needs no bounds check.
     */
    static long address(long kept) {
        return kept >>> SPARE_BITS;
    }

    static int get8(long address) {
        check(address, 1, false);
        return ALL.get(JAVA_BYTE, address) & 0xFF;
    }

    static int get16(long address) {
        check(address, 2, false);
        return ALL.get(LE16, address) & 0xFFFF;
    }

    static int get32(long address) {
        check(address, 4, false);
        return ALL.get(LE32, address);
    }

    static long get64(long address) {
        check(address, 8, false);
        return ALL.get(LE64, address);
    }

    static void set8(long address, int value) {
        check(address, 1, true);
        ALL.set(JAVA_BYTE, address, (byte) value);
    }

    static void set16(long address, int value) {
        check(address, 2, true);
        ALL.set(LE16, address, (short) value);
    }

    static void set64(long address, long value) {
        check(address, 8, true);
        ALL.set(LE64, address, value);
    }

    static int getAcquire16(long address) {
        check(address, 2, false);
        return (short) SHARED16.getAcquire(ALL, address) & 0xFFFF;
    }

    static int getOpaque16(long address) {
        check(address, 2, false);
        return (short) SHARED16.getOpaque(ALL, address) & 0xFFFF;
    }

    // A fence and a plain store instead of an ordered one: where a peer has cut off the file behind
    // the memory, an interpreted ordered 16-bit store ends the JVM (25, x86-64), this one throws.

    static void setRelease16(long address, int value) {
        check(address, 2, true);
        VarHandle.releaseFence();
        ALL.set(LE16, address, (short) value);
    }

    /** For stores that a fence follows, or that are no more than a hint. */
    static void setOpaque16(long address, int value) {
        check(address, 2, true);
        ALL.set(LE16, address, (short) value);
    }

    static int getOpaque32(long address) {
        check(address, 4, false);
        return (int) SHARED32.getOpaque(ALL, address);
    }

    static void setOpaque32(long address, int value) {
        check(address, 4, true);
        SHARED32.setOpaque(ALL, address, value);
    }

    static long getAcquire64(long address) {
        check(address, 8, false);
        long value = ALL.get(LE64, address);
        VarHandle.acquireFence();
        return value;
    }

    static void setRelease64(long address, long value) {
        check(address, 8, true);
        VarHandle.releaseFence();
        ALL.set(LE64, address, value);
    }

    static void copy(long from, MemorySegment into, long intoOffset, long length) {
        check(from, length, false);
        MemorySegment.copy(ALL, from, into, intoOffset, length);
    }

    static void copy(MemorySegment from, long fromOffset, long into, long length) {
        check(into, length, true);
        MemorySegment.copy(from, fromOffset, ALL, into, length);
    }

    static MemorySegment slice(long address, long length) {
        check(address, length, false);
        return ALL.asSlice(address, length);
    }
}
