package virtio.api.transport;

import org.osgi.annotation.versioning.ConsumerType;

/**
 * The device end of one transport, as the core sees it; the counterpart of {@link Transport}.
 *
 * <p>Thread-safe. {@link #interrupt} allocates nothing.
 */
@ConsumerType
public interface Export extends AutoCloseable {
    /**
     * Whether a driver is at the other end now, for people: {@code driven by pid 4711}, or null.
     */
    String driver();

    /** Used buffer notification to the driver. */
    void interrupt(int queue);

    /** Configuration change notification to the driver. */
    void configChanged();

    /** Asks for {@link ExportedDevice#queueNotified} on the queue's thread soon. */
    void schedule(int queue);

    /** The driver broke a promise on that queue: sets DEVICE_NEEDS_RESET or what stands for it. */
    void queueBroken(int queue, String reason);

    /** Stops all queues and withdraws the device; idempotent, returns when no thread uses it. */
    @Override
    void close();
}
