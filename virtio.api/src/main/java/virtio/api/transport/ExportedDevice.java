package virtio.api.transport;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.Features;
import virtio.api.VirtioException;

/**
 * What the core hands to the device end of a transport: a backend with its queues, as registers
 * would show it.
 *
 * <p>Threading: control methods are called by one thread at a time. {@link #queueNotified} runs the
 * backend and is called on a thread that the transport gives to that queue, never on the driver's;
 * different queues may have different threads. {@link #stopQueue} and {@link #reset} return when no
 * thread is in that queue any more, after which its memory may be unmapped; they may be called from
 * any thread, the queue's own included when it is not inside {@link #queueNotified}.
 */
@ProviderType
public interface ExportedDevice {
    /** A constant of {@link virtio.api.DeviceType}. */
    int deviceType();

    /** What backend and ring offer; the transport adds and removes what is its own. */
    Features offered();

    /** Number of queues. */
    int queueCount();

    /** Most descriptors of a queue, a power of two. */
    int maxQueueSize();

    /** Bytes of the configuration space. */
    int configSize();

    /** Changes whenever the configuration does. */
    int configGeneration();

    /** Reads configuration bytes; those beyond the size read as 0. */
    void readConfig(int offset, byte[] into);

    /** Writes configuration bytes; what is not writable is ignored. */
    void writeConfig(int offset, byte[] from);

    /** Takes the driver's choice; false when it is not acceptable and FEATURES_OK must stay off. */
    boolean accept(Features features);

    /**
     * Starts serving a queue.
     *
     * @throws VirtioException when size or addresses are not acceptable, naming value and limit
     */
    void startQueue(int queue, QueueLayout layout, DriverMemory memory, Export export)
            throws VirtioException;

    /** The driver made buffers available, or {@link Export#schedule} was called: serves them. */
    void queueNotified(int queue);

    /** Stops serving a queue; the next available index, 0 when it was not started. */
    int stopQueue(int queue);

    /** The driver reset the device: all queues stop, features are forgotten. */
    void reset();
}
