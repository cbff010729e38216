package virtio.ring.queue;

import virtio.api.backend.Chain;

/**
 * With IN_ORDER: what was completed and waits for its turn, because the driver sees buffers used in
 * the order in which it made them available (DEV-CORE-026).
 */
final class Turns {
    /** Set in every entry of {@link #done}, which are 0 as long as a buffer is not completed. */
    private static final long DONE = 1L << 63;

    /*
     * By turn modulo size:
     *
     * | DONE | descriptors, less one: 15 bits | id: 16 bits | length: 32 bits |
     */
    private static final int ID_SHIFT = 32;
    private static final int DESCRIPTORS_SHIFT = 48;

    private final long[] done;
    private long taken;
    private long used;
    private int slot;
    private long current;

    Turns(int size) {
        done = new long[size];
    }

    /** Gives the next turn; false when as many are outstanding as there are descriptors. */
    boolean take(RingChain chain) {
        chain.turn = taken++;
        return taken - used <= done.length;
    }

    /** Whether a buffer that is completed has its turn; it then is past it. */
    boolean isNext(RingChain chain) {
        if (chain.turn != used) {
            return false;
        }
        pass(1);
        return true;
    }

    /** Whether buffers have their turns one by one, with none that waits for the last of them. */
    boolean areNext(Chain[] chains, int count) {
        for (int i = 0; i < count; i++) {
            if (((RingChain) chains[i]).turn != used + i) {
                return false;
            }
        }
        int behind = slot + count;
        return done[behind < done.length ? behind : behind - done.length] == 0;
    }

    /** A buffer is completed that has to wait. */
    void done(RingChain chain, long length) {
        // Of outstanding turns, so that it lies less than a lap ahead.
        long at = slot + (chain.turn - used);
        done[(int) (at < done.length ? at : at - done.length)] =
                DONE
                        | (long) (chain.descriptors() - 1 & 0x7FFF) << DESCRIPTORS_SHIFT
                        | (long) chain.id() << ID_SHIFT
                        | length;
    }

    /** Goes on to the next buffer in order, if that waits completed. */
    boolean next() {
        current = done[slot];
        if (current == 0) {
            return false;
        }
        done[slot] = 0;
        pass(1);
        return true;
    }

    /** Goes on by so many buffers, which did not wait. */
    void pass(int count) {
        int behind = slot + count;
        slot = behind < done.length ? behind : behind - done.length;
        used += count;
    }

    int id() {
        return (int) (current >>> ID_SHIFT) & 0xFFFF;
    }

    int descriptors() {
        return ((int) (current >>> DESCRIPTORS_SHIFT) & 0x7FFF) + 1;
    }

    long length() {
        return current & 0xFFFFFFFFL;
    }
}
