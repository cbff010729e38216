package virtio.api;

import org.osgi.annotation.versioning.ConsumerType;

/**
 * A driver, registered as a service by a device bundle; {@code struct virtio_driver}.
 *
 * <p>The core calls the methods of one {@link Bound} one after the other, never two at once, on
 * threads of its own or the framework's.
 */
@ConsumerType
public interface VirtioDriver {
    /** The device type it drives, a constant of {@link DeviceType}. */
    int deviceType();

    /**
     * The features of its device type that it wants, out of those offered; the core adds the ring's
     * and the transport's own.
     *
     * @param config readable, not writable yet
     * @throws VirtioException when it cannot drive such a device
     */
    Features wanted(Features offered, ConfigSpace config) throws VirtioException;

    /**
     * Takes the device over: finds queues, calls {@link VirtioDevice#ready}, announces services.
     *
     * @throws VirtioException when it cannot; the core sets FAILED, resets and gives everything
     *     back, the driver has kept nothing
     */
    Bound probe(VirtioDevice device) throws VirtioException;

    /** A driver with its device. */
    @ConsumerType
    interface Bound {
        /** The configuration changed. */
        void configChanged();

        /**
         * Whether the driver could go on with such a device, asked before {@link #freeze}.
         *
         * @param features what would be negotiated
         * @throws VirtioException when not (another capacity, a feature in use is missing), naming
         *     both values
         */
        void compatible(Features features, ConfigSpace config) throws VirtioException;

        /**
         * Stops using the device: after return no queue is touched, what is in flight is remembered
         * for {@link #restore}, and consumers' calls wait.
         *
         * @param drainMillis how long to wait for what is in flight; 0 when the device is gone
         */
        void freeze(long drainMillis);

        /**
         * Goes on with the device behind another transport, or the same one anew: finds queues,
         * calls {@link VirtioDevice#ready}, resubmits what was in flight and lets consumers go on.
         *
         * @throws VirtioException when it is not the same device; the driver is frozen as before
         */
        void restore(VirtioDevice device) throws VirtioException;

        /**
         * The wait of a frozen driver is over: fails what is in flight or waiting, and every call
         * from here on, with that reason, until {@link #restore}.
         */
        void abandon(VirtioException reason);

        /**
         * Lets the device go: withdraws services, fails what is in flight, gives memory and queues
         * back. Follows {@link #freeze} where the device still works.
         */
        void remove();
    }
}
