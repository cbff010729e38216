package virtio.api.backend;

import org.osgi.annotation.versioning.ConsumerType;

import virtio.api.Features;
import virtio.api.VirtioException;

/**
 * A device in software, behind one export.
 *
 * <p>Threading: {@link #process} is called on the threads of the queues, one per queue at a time,
 * several queues at once; everything else by one thread at a time.
 */
@ConsumerType
public interface Backend extends AutoCloseable {
    /** A constant of {@link virtio.api.DeviceType}. */
    int deviceType();

    /** Features of its device type and, with {@code VERSION_1}, nothing of ring or transport. */
    Features offered();

    /** Number of queues. */
    int queueCount();

    /** Bytes of the configuration space. */
    int configSize();

    /** Reads configuration bytes, all within {@link #configSize}. */
    void readConfig(int offset, byte[] into);

    /** Writes configuration bytes, all within {@link #configSize}; ignores what is not writable. */
    void writeConfig(int offset, byte[] from);

    /** Where to report configuration changes to, set once; called on any thread. */
    void onConfigChange(Runnable listener);

    /** The driver's choice, before the first queue starts; all within {@link #offered}. */
    void accepted(Features features);

    /** A queue is live from here on; {@link DeviceQueue#schedule} asks for {@link #process}. */
    default void queueStarted(DeviceQueue queue) {}

    /**
     * Serves the available buffers of a queue, until {@link DeviceQueue#next} is false.
     *
     * @throws VirtioException when it cannot go on: that breaks the queue, as any other exception
     *     does, and the device then needs a reset
     */
    void process(DeviceQueue queue) throws VirtioException;

    /**
     * A queue is no longer live: returns when its chains are completed or forgotten and nothing
     * touches their memory.
     */
    default void queueStopped(DeviceQueue queue) {}

    /** Gives everything back; idempotent. */
    @Override
    void close();
}
