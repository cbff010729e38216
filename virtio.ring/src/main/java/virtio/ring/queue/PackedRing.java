package virtio.ring.queue;

import java.lang.invoke.VarHandle;

/**
 * The packed virtqueue's layout (virtio 2.8 Packed Virtqueues).
 *
 * <pre>
 * descriptor (16 bytes)     | addr u64 | len u32 | id u16 | flags u16 |
 * event suppression         | desc u16: offset 15 bits, wrap 1 bit | flags u16 |
 * </pre>
 *
 * Both ends count descriptors for ever; a count says slot and wrap counter, which starts as 1.
 */
final class PackedRing {
    static final int MAX_SIZE = 32768;

    static final int DESCRIPTOR_ALIGNMENT = 16;
    static final int EVENT_ALIGNMENT = 4;
    static final int EVENT_BYTES = 4;

    /** Offset of {@code len}, {@code id} and {@code flags}, written as one 64-bit word. */
    static final int WORD = 8;

    static final int ID_SHIFT = 32;
    static final int FLAGS_SHIFT = 48;

    static final int AVAIL = 1 << 7;
    static final int USED = 1 << 15;

    /** {@code RING_EVENT_FLAGS_*}. */
    static final int ENABLE = 0;

    static final int DISABLE = 1;
    static final int DESC = 2;

    /** No used descriptor's word: neither of its flags is like the other. */
    static final long NOTHING = (long) AVAIL << FLAGS_SHIFT;

    private PackedRing() {}

    /** Length, id and flags as a descriptor has them, of flags the low 16 bits. */
    static long word(long length, int id, int flags) {
        return length | (long) id << ID_SHIFT | (long) flags << FLAGS_SHIFT;
    }

    /** The buffer id in a descriptor's word. */
    static int id(long word) {
        return (int) (word >>> ID_SHIFT) & 0xFFFF;
    }

    /**
     * A position as in an event suppression structure.
     *
     * @param slot where it is, up to a lap beyond the end
     * @param wrap the wrap counter of the lap that this is counted from
     */
    static int offsetAndWrap(int slot, boolean wrap, int size) {
        return slot < size ? slot | (wrap ? 1 << 15 : 0) : slot - size | (wrap ? 0 : 1 << 15);
    }

    /** Flags of a descriptor that is available in the lap of that count. */
    static int availableFlags(long count, int size) {
        return (count / size & 1) == 0 ? AVAIL : USED;
    }

    /** Flags of a descriptor that was used in the lap of that count. */
    static int usedFlags(long count, int size) {
        return (count / size & 1) == 0 ? AVAIL | USED : 0;
    }

    /** Whether the flags in a descriptor's word say that it is available, or used. */
    static boolean matches(long word, int flags) {
        return ((int) (word >>> FLAGS_SHIFT) & (AVAIL | USED)) == flags;
    }

    /**
     * How many descriptors that follow each other are available, or used, now; what the other end
     * wrote before is visible then.
     *
     * <p>A loop that does nothing else, so that the processor has all of their lines on their way
     * at once.
     *
     * @param word address of the first one's word
     * @param most where to stop, at the end of the ring at the latest
     */
    static int ready(long word, int flags, int most) {
        int ready = 0;
        // Whoever sees the first of a burst sees all of it.
        while (ready < most
                && matches(RingMemory.get64(word + (long) Descriptor.BYTES * ready), flags)) {
            ready++;
        }
        VarHandle.acquireFence();
        return ready;
    }

    /** Whether an event suppression structure asks for a notification at a position. */
    static boolean wantsEvent(int wish) {
        return (wish >>> 16 & 3) == DESC;
    }

    /** Whether one that does not asks for notifications at all. */
    static boolean wantsAny(int wish) {
        return (wish >>> 16 & 3) != DISABLE;
    }

    /**
     * Whether the position that the other end asked for was passed.
     *
     * @param now descriptors so far, the next one going to {@code slot} with that wrap counter
     * @param old descriptors when it was asked for last
     */
    static boolean passed(int wish, long now, long old, int slot, boolean wrap, int size) {
        long at = now - slot + (wish & 0x7FFF);
        if ((wish >>> 15 & 1) != 0 != wrap) {
            at -= size;
        }
        return old <= at && at < now;
    }
}
