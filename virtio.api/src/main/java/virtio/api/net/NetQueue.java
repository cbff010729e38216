package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.VirtioException;

/**
 * Burst receive and send of frames without allocation; not thread-safe, one owner at a time.
 *
 * <p>Buffers come from the queue's pool: {@link #allocate} and {@link #receive} hand them out,
 * {@link #send} and {@link #free} take them back, with all that is chained to them. Misuse (a
 * buffer that is not the caller's, a frame longer than the card sends, a closed queue) is an
 * exception that names value and limit, and then nothing was sent or freed.
 *
 * <p>While the card is frozen, nothing is received or taken, and {@link #receive(PacketBuffer[],
 * long)} waits.
 */
@ProviderType
public interface NetQueue extends AutoCloseable {
    /** Takes empty buffers; how many were stored from index 0. */
    int allocate(PacketBuffer[] into);

    /** Gives buffers back unsent. */
    void free(PacketBuffer[] buffers, int count);

    /** Takes received frames without waiting; how many were stored from index 0. */
    int receive(PacketBuffer[] into);

    /** Waits by interrupt for received frames; how many were stored, 0 when the time was up. */
    int receive(PacketBuffer[] into, long timeoutMillis) throws InterruptedException;

    /**
     * Sends frames; how many were taken, from index 0: the rest did not fit and stays the caller's.
     */
    int send(PacketBuffer[] frames, int count);

    /**
     * Most bytes of a frame in one buffer, at {@link PacketBuffer#HEADROOM}; the rest is chained.
     */
    int bufferBytes();

    /** Why nothing works any more; null while it does. */
    String goneReason();

    /** Gives the pair back, and all buffers that are still out; idempotent. */
    @Override
    void close() throws VirtioException;
}
