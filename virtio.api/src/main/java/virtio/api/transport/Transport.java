package virtio.api.transport;

import org.osgi.annotation.versioning.ConsumerType;
import org.osgi.annotation.versioning.ProviderType;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;

/**
 * The driver end of one device: registers, no sequencing; {@code struct virtio_config_ops}.
 *
 * <p>The core calls in the order of virtio 3.1 Device Initialization. Control methods are called by
 * one thread at a time; {@link #notifyQueue} by the owner of the queue at any time. A control
 * method throws when the device cannot be reached any more; the transport then also reports {@link
 * Listener#gone}.
 */
@ConsumerType
public interface Transport extends AutoCloseable {
    /** Queue number for {@link #mapToken} that means the device as a whole. */
    int DEVICE = -1;

    /** A constant of {@link virtio.api.DeviceType}. */
    int deviceType() throws VirtioException;

    /** What the device offers, less what this transport cannot carry. */
    Features offered() throws VirtioException;

    /** Tells the device what the driver accepts, before FEATURES_OK is set. */
    void accept(Features features) throws VirtioException;

    /** The device status field, bits of {@link virtio.api.DeviceStatus}. */
    int status() throws VirtioException;

    /**
     * Writes the device status field; 0 resets, and returns when the device says that it is reset.
     */
    void status(int value) throws VirtioException;

    /** A number that changes whenever the configuration does; constant where there is none. */
    int configGeneration() throws VirtioException;

    /**
     * Reads configuration bytes; an error naming offset and size when beyond what the device has.
     */
    void readConfig(int offset, byte[] into) throws VirtioException;

    /** Writes configuration bytes; as {@link #readConfig}. */
    void writeConfig(int offset, byte[] from) throws VirtioException;

    /** Most descriptors of a queue; 0 when there is no such queue. */
    int maxQueueSize(int queue) throws VirtioException;

    /** What the map operations know the queue, or the {@link #DEVICE}, by. */
    MapToken mapToken(int queue);

    /**
     * Configures and enables a queue.
     *
     * @throws VirtioException when its size is not within the device's limits, naming them, when it
     *     is in use already, or when the device refuses it
     */
    void startQueue(int queue, QueueLayout layout) throws VirtioException;

    /**
     * Resets one queue (virtio 2.6.1) and returns when the device has confirmed it.
     *
     * @return false when the transport cannot
     */
    boolean stopQueue(int queue) throws VirtioException;

    /**
     * Available buffer notification; allocates and throws nothing.
     *
     * @param data what NOTIFICATION_DATA carries, else the queue number
     */
    void notifyQueue(int queue, int data);

    /**
     * Where to report to, set once before the first queue is started. That the device is gone
     * already is reported too: by this call, or soon after it by a thread of the transport.
     */
    void listen(Listener listener);

    /** Lets the device go without touching its state; idempotent. Live mappings stay usable. */
    @Override
    void close();

    /** What a device reports; implemented by the core, called on threads of the transport. */
    @ProviderType
    interface Listener {
        /** Used buffer notification of a queue; runs the driver's callback. */
        void queueUsed(int queue);

        /** Configuration change notification; returns at once. */
        void configChanged();

        /** The device is gone for good; returns at once. Further calls have no effect. */
        void gone(VirtioException reason);
    }
}
