package virtio.api.status;

/**
 * A virtqueue of the driver's end at one moment, from private state, without stopping it.
 *
 * @param index number in the device
 * @param name for people
 * @param layout {@code split} or {@code packed}
 * @param size descriptors
 * @param free descriptors that are free
 * @param availableIndex next available index, 16 bits
 * @param usedIndex next used index, 16 bits
 * @param added buffers exposed so far
 * @param used buffers got back so far
 * @param notifications sent to the device so far
 * @param interrupts received from the device so far
 * @param broken why it is broken; null when it works
 */
public record QueueSnapshot(
        int index,
        String name,
        String layout,
        int size,
        int free,
        int availableIndex,
        int usedIndex,
        long added,
        long used,
        long notifications,
        long interrupts,
        String broken) {}
