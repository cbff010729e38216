package virtio.ring.queue;

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

    private PackedRing() {}

    /** Slot and wrap counter of a count, as in an event suppression structure. */
    static int offsetAndWrap(long count, int size) {
        int wrap = (count / size & 1) == 0 ? 1 : 0;
        return (int) (count % size) | wrap << 15;
    }

    /** The whole structure that asks for a notification when that count is passed. */
    static int eventAt(long count, int size) {
        return offsetAndWrap(count, size) | DESC << 16;
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
     * Whether the other end wants to be notified.
     *
     * @param event its event suppression structure
     * @param now descriptors so far
     * @param old descriptors when it was asked for last
     */
    static boolean needEvent(int event, long now, long old, int size, boolean eventIdx) {
        int flags = event >>> 16 & 3;
        if (flags != DESC || !eventIdx) {
            return flags != DISABLE;
        }
        long slot = now % size;
        int wrap = (now / size & 1) == 0 ? 1 : 0;
        long at = now - slot + (event & 0x7FFF);
        if ((event >>> 15 & 1) != wrap) {
            at -= size;
        }
        return old <= at && at < now;
    }
}
