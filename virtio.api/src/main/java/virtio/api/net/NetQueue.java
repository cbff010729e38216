package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.VirtioException;

/**
 * Burst receive and send of frames without allocation; not thread-safe, one owner at a time.
 *
 * <p>Buffers come from the queue's pool: {@link #allocate} and {@link #receive} hand them out,
 * {@link #send} and {@link #free} take them back.
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

    /** Gives the pair back; idempotent. */
    @Override
    void close() throws VirtioException;
}
