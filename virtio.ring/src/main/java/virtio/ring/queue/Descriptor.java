package virtio.ring.queue;

/** Descriptor flags (virtio 2.7.5 and 2.8.10) and limits that both layouts share. */
final class Descriptor {
    static final int NEXT = 1;
    static final int WRITE = 2;
    static final int INDIRECT = 4;

    /** Bytes of a descriptor in a ring or a table. */
    static final int BYTES = 16;

    /** Most bytes of one buffer (virtio 2.7.5.2). */
    static final long MAX_TOTAL_BYTES = 1L << 32;

    /** Most elements in an indirect table, as Linux and QEMU have it. */
    static final int MAX_INDIRECT = 1024;

    private Descriptor() {}

    /**
     * How far the descriptor of an id lies from the first one: 16 bytes each, said as eight times
     * two, which is the most that x86 multiplies an index by as part of an address.
     */
    static long offset(char id) {
        return (id << 1) * 8L;
    }
}
