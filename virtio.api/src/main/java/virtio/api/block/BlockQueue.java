package virtio.api.block;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.VirtioException;

import java.lang.foreign.MemorySegment;

/**
 * Burst submission and completion without allocation; not thread-safe, one owner at a time.
 *
 * <p>A request is prepared by {@link #read} and its siblings, made visible to the device by {@link
 * #submit}, and found again by {@link #poll} or {@link #await} under the token it was given.
 * Results are {@link #OK}, {@link #IO_ERROR}, {@link #UNSUPPORTED} or {@link #GONE}.
 *
 * <p>Misuse (an offset beyond the disk, a misaligned length, a segment of one thread, a closed
 * queue) is an {@link IllegalArgumentException} or {@link IllegalStateException} that names value
 * and limit.
 */
@ProviderType
public interface BlockQueue extends AutoCloseable {
    /** Done. */
    int OK = 0;

    /** The device reports an error, or the segment was closed before it was done. */
    int IO_ERROR = 1;

    /** The device does not know the request. */
    int UNSUPPORTED = 2;

    /** The device went away and did not come back in time; {@link #goneReason} says why. */
    int GONE = 3;

    /** Prepares a read; false when {@code depth} requests or the ring's room are in use. */
    boolean read(long offset, MemorySegment into, long token);

    /** Prepares a write; false as for {@link #read}. */
    boolean write(long offset, MemorySegment from, long token);

    /** Prepares a flush; false as for {@link #read}. */
    boolean flush(long token);

    /** Prepares a discard; false as for {@link #read}. */
    boolean discard(long offset, long length, long token);

    /** Prepares a write of zeroes; false as for {@link #read}. */
    boolean writeZeroes(long offset, long length, boolean unmap, long token);

    /** Makes what was prepared visible to the device and notifies it if it wants to be. */
    void submit();

    /**
     * Collects completions without waiting.
     *
     * @return how many were stored from index 0 of both arrays
     */
    int poll(long[] tokens, int[] results);

    /**
     * Waits by interrupt for at least one completion. Where they come within some 50 us each, the
     * caller's thread looks for them meanwhile and needs no interrupt.
     *
     * @return how many were stored, 0 when the time was up
     */
    int await(long[] tokens, int[] results, long timeoutMillis) throws InterruptedException;

    /** Requests prepared or submitted and not yet collected. */
    int inFlight();

    /** Why requests ended as {@link #GONE}; null when none did. */
    String goneReason();

    /** Waits for what is in flight, then gives the queue back; idempotent. */
    @Override
    void close() throws VirtioException;
}
