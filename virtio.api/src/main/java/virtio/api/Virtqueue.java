package virtio.api;

import org.osgi.annotation.versioning.ConsumerType;
import org.osgi.annotation.versioning.ProviderType;

import virtio.api.map.DeviceMapping;

/**
 * The driver's end of a virtqueue; {@code struct virtqueue} of Linux with its verbs.
 *
 * <p>Not thread-safe: one owner at a time, and hand-over needs a happens-before edge. Only {@link
 * #broken}, {@link #disableCallback} and the read-only properties may be called by others.
 *
 * <p>Full and empty are return values. A promise that the device breaks (a used id out of range, a
 * length beyond what was offered, an index that jumped) marks the queue {@link #broken}: nothing
 * more is added or got, nothing is thrown. A promise that the caller breaks is an exception that
 * names value and limit.
 *
 * <p>Steady state allocates nothing.
 */
@ProviderType
public interface Virtqueue {
    /** What {@link #get} returns when there is nothing; no valid token. */
    long NONE = Long.MIN_VALUE;

    /** The queue's number in the device. */
    int index();

    /** The name it was requested by. */
    String name();

    /** Descriptors in the ring. */
    int size();

    /** Descriptors that are free now; an indirect buffer takes one. */
    int free();

    /** Most elements of one buffer: 1024 with indirect descriptors, else {@link #size}. */
    int maxElements();

    /** How this queue's buffers are mapped, bound for its lifetime. */
    DeviceMapping mapping();

    /**
     * Exposes a buffer, without telling the device; {@code virtqueue_add_sgs}.
     *
     * @param buffers 1 or more elements, free to be reused afterwards
     * @param token what {@link #get} returns for it, anything but {@link #NONE}
     * @return false when the ring or the mapping has no room now, or the queue is broken
     * @throws IllegalArgumentException when it could never fit, naming count or size and limit
     */
    boolean add(ScatterList buffers, long token);

    /**
     * Exposes premapped buffers of one element each that the device reads, as many as there is room
     * for; {@code virtqueue_add_outbuf_premapped}, many at a time.
     *
     * @param mapHandles where each begins, as {@link ScatterList#outMapped} has it
     * @param lengths bytes of each, 1 or more
     * @param tokens as {@link #add}
     * @param count how many of the three arrays, from index 0
     * @return how many were exposed; 0 when the queue is broken
     * @throws IllegalArgumentException when one of them could never be added, and then none was
     */
    int addOutMapped(long[] mapHandles, int[] lengths, long[] tokens, int count);

    /**
     * As {@link #addOutMapped}, for buffers that the device writes; {@code
     * virtqueue_add_inbuf_premapped}.
     */
    int addInMapped(long[] mapHandles, int[] lengths, long[] tokens, int count);

    /** Makes added buffers visible; whether the device wants a notification. */
    boolean kickPrepare();

    /** Notifies the device; false when the queue is broken. */
    boolean notifyDevice();

    /** {@link #kickPrepare} and, if wanted, {@link #notifyDevice}. */
    default boolean kick() {
        return !kickPrepare() || notifyDevice();
    }

    /** The token of the next used buffer, unmapped again, or {@link #NONE}. */
    long get();

    /** Bytes that the device wrote to the buffer that {@link #get} returned last. */
    int usedLength();

    /**
     * As many used buffers as are ready and fit.
     *
     * @return how many were stored from index 0 of both arrays
     */
    int get(long[] tokens, int[] usedLengths);

    /** Asks the device not to interrupt; a hint, spurious callbacks still come. */
    void disableCallback();

    /**
     * Asks for an interrupt at the next used buffer.
     *
     * @return false when buffers were used meanwhile: get them, then try again
     */
    boolean enableCallback();

    /** First half of {@link #enableCallback}: what to give to {@link #poll}. */
    int enableCallbackPrepare();

    /** Whether buffers were used since {@link #enableCallbackPrepare} returned that value. */
    boolean poll(int prepared);

    /** As {@link #enableCallback}, but the interrupt may wait until most buffers are used. */
    boolean enableCallbackDelayed();

    /**
     * Takes back a buffer that the device did not use, unmapped, after the device or the queue was
     * reset.
     *
     * @return its token, or {@link #NONE} when none is left
     */
    long detachUnused();

    /**
     * Resets this queue alone and gives its unused buffers back; {@code virtqueue_reset}.
     *
     * @throws VirtioException when {@link Feature#RING_RESET} is not negotiated or the device fails
     */
    void reset(Recycler recycler) throws VirtioException;

    /** As {@link #reset}, with another number of descriptors; {@code virtqueue_resize}. */
    void resize(int size, Recycler recycler) throws VirtioException;

    /** Why the queue is broken, with value and limit; null when it works. */
    String broken();

    /** Takes unused buffers back. */
    @ConsumerType
    @FunctionalInterface
    interface Recycler {
        /** The buffer with this token will not be used any more. */
        void recycle(long token);
    }
}
