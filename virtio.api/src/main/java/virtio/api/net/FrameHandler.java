package virtio.api.net;

import org.osgi.annotation.versioning.ConsumerType;

import java.lang.foreign.MemorySegment;

/** Takes received frames, for consumers that want simplicity. */
@ConsumerType
@FunctionalInterface
public interface FrameHandler {
    /**
     * A frame was received; on a thread of the card.
     *
     * @param frame from its destination address on, checksums filled in; valid during the call
     */
    void frame(MemorySegment frame);
}
