package virtio.api.net;

import org.osgi.annotation.versioning.ConsumerType;

/** Sees the frames that go through a card. */
@ConsumerType
@FunctionalInterface
public interface FrameTap {
    /**
     * A frame was received, or is about to be sent; on the thread that does so, which waits.
     *
     * @param pair the queue pair
     * @param received false for a frame that is sent
     * @param frame valid during the call, not to be changed
     */
    void frame(int pair, boolean received, PacketBuffer frame);
}
