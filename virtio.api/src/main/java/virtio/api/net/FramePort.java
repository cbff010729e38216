package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.VirtioException;

import java.lang.foreign.MemorySegment;

/** A card whose received frames go to a {@link FrameHandler}. Thread-safe. */
@ProviderType
public interface FramePort extends AutoCloseable {
    /**
     * Sends a frame, waiting for room in the ring as long as a swap may take.
     *
     * @param frame from its destination address on, with checksums; the caller's again on return
     * @throws VirtioException when there was no room in time, or the card is gone
     */
    void send(MemorySegment frame) throws VirtioException;

    /** Returns when the handler is not called any more; idempotent. */
    @Override
    void close();
}
