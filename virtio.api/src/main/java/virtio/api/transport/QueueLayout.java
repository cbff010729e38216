package virtio.api.transport;

import java.lang.foreign.MemorySegment;

/**
 * Where a virtqueue lies.
 *
 * @param size number of descriptors
 * @param descriptorArea map handle of the descriptor table or the packed ring
 * @param driverArea map handle of the available ring or the driver event suppression
 * @param deviceArea map handle of the used ring or the device event suppression
 * @param nextAvailable device end: the available index to go on from; 0 for a fresh queue
 * @param inflight device end: shared memory that survives this process and in which the queue keeps
 *     what it has not completed, as vhost-user's inflight region; null for none
 */
public record QueueLayout(
        int size,
        long descriptorArea,
        long driverArea,
        long deviceArea,
        int nextAvailable,
        MemorySegment inflight) {
    /** A fresh queue. */
    public QueueLayout(int size, long descriptorArea, long driverArea, long deviceArea) {
        this(size, descriptorArea, driverArea, deviceArea, 0, null);
    }
}
