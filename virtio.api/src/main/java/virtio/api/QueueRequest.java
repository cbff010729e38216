package virtio.api;

import org.osgi.annotation.versioning.ConsumerType;

/**
 * A virtqueue that a driver wants; {@code struct virtqueue_info} of Linux.
 *
 * @param name for people, as {@code requestq.0}
 * @param maxSize most descriptors wanted; the queue gets that or what the device can, if less
 * @param callback called on a thread of the transport when the device used buffers and callbacks
 *     are enabled; must not block; null to poll only
 */
public record QueueRequest(String name, int maxSize, Callback callback) {
    /** {@code vq_callback_t} of Linux. */
    @ConsumerType
    @FunctionalInterface
    public interface Callback {
        /** The device has used buffers of the queue. */
        void used(Virtqueue queue);
    }
}
