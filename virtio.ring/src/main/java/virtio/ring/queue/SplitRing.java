package virtio.ring.queue;

/**
 * The split virtqueue's layout (virtio 2.7 Split Virtqueues).
 *
 * <pre>
 * descriptor (16 bytes)    | addr u64 | len u32 | flags u16 | next u16 |
 * available ring           | flags u16 | idx u16 | ring u16[size] | used_event u16 |
 * used ring                | flags u16 | idx u16 | ring {id u32, len u32}[size] | avail_event u16 |
 * </pre>
 */
final class SplitRing {
    static final int MAX_SIZE = 32768;

    static final int DESCRIPTOR_ALIGNMENT = 16;
    static final int AVAILABLE_ALIGNMENT = 2;
    static final int USED_ALIGNMENT = 4;

    /** Offset of {@code len}, {@code flags} and {@code next}, written as one 64-bit word. */
    static final int DESCRIPTOR_WORD = 8;

    static final int FLAGS = 0;
    static final int IDX = 2;
    static final int RING = 4;

    /** {@code VIRTQ_AVAIL_F_NO_INTERRUPT}. */
    static final int NO_INTERRUPT = 1;

    /** {@code VIRTQ_USED_F_NO_NOTIFY}. */
    static final int NO_NOTIFY = 1;

    private SplitRing() {}

    static long descriptorBytes(int size) {
        return (long) Descriptor.BYTES * size;
    }

    static long availableBytes(int size) {
        return RING + 2L * size + 2;
    }

    static long usedBytes(int size) {
        return RING + 8L * size + 2;
    }

    /** Offset of {@code used_event} in the available ring. */
    static long usedEvent(int size) {
        return RING + 2L * size;
    }

    /** Offset of {@code avail_event} in the used ring. */
    static long availEvent(int size) {
        return RING + 8L * size;
    }

    /**
     * Whether going from {@code old} to {@code now} passed the event index; {@code
     * vring_need_event}.
     */
    static boolean needEvent(int event, int now, int old) {
        return ((now - event - 1) & 0xFFFF) < ((now - old) & 0xFFFF);
    }
}
