package virtio.ring;

import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

/** What the operator sets for the bus. */
@ObjectClassDefinition(name = "Virtio bus", description = "Waits of the virtio core")
public @interface BusConfiguration {
    /** How long consumers' calls may wait for a swap or a reconnect. */
    @AttributeDefinition(
            name = "Swap timeout (ms)",
            description = "How long consumers' calls may wait for a swap or a reconnect",
            min = "0")
    long swapTimeoutMillis() default 30_000;

    /** How long a freeze may wait for what is in flight. */
    @AttributeDefinition(
            name = "Drain timeout (ms)",
            description = "How long a freeze may wait for requests in flight",
            min = "0")
    long drainTimeoutMillis() default 5_000;

    /** Pause between two attempts to find a lost device again. */
    @AttributeDefinition(
            name = "Reconnect interval (ms)",
            description = "Pause between two attempts to find a lost device again",
            min = "1")
    long reconnectIntervalMillis() default 200;
}
