package virtio.api;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.map.DeviceMapping;

/**
 * What a driver sees of a device between {@link VirtioDriver#probe} or {@link
 * VirtioDriver.Bound#restore} and the next freeze or removal; {@code struct virtio_device}.
 */
@ProviderType
public interface VirtioDevice {
    /** Service property of what a driver registers: {@link #name}. */
    String NAME = "virtio.name";

    /** The name it was attached by, unique in the container, as {@code blk0}. */
    String name();

    /** A constant of {@link DeviceType}. */
    int deviceType();

    /** What was negotiated. */
    Features features();

    /** The configuration space. */
    ConfigSpace config();

    /** How memory is mapped for this device. */
    DeviceMapping mapping();

    /**
     * Makes the virtqueues, once; {@code virtio_find_vqs}.
     *
     * @param wanted by queue index; null leaves a queue out
     * @return by queue index; null where left out
     * @throws VirtioException when the device lacks a queue or there is no memory for one
     */
    Virtqueue[] findQueues(QueueRequest... wanted) throws VirtioException;

    /**
     * Sets DRIVER_OK: notifications may be sent from here on; {@code virtio_device_ready}.
     *
     * @throws VirtioException when the device does not answer, or was let go
     */
    void ready() throws VirtioException;

    /**
     * Says that the device is of no use as it is (a queue is broken): the core resets it and takes
     * the road of a swap to the same address. Returns at once; thread-safe.
     */
    void needsReset(String reason);

    /** How long a consumer's call may wait for a swap or a reconnect, set by the operator. */
    long swapTimeoutMillis();
}
