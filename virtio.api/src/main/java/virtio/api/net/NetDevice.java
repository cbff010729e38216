package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.VirtioException;

/**
 * A network card; an OSGi service with the property {@value #NAME}.
 *
 * <p>The service object stays the same while the transport below it is swapped or reconnected;
 * frames in flight meanwhile may be dropped and are then counted. Thread-safe, but for {@link
 * NetQueue}.
 */
@ProviderType
public interface NetDevice {
    /** Service property: the name the device was attached by. */
    String NAME = "virtio.name";

    /** The name the device was attached by, as {@code net0}. */
    String name();

    /** The hardware address, 6 bytes. */
    byte[] macAddress();

    /** Most bytes of a frame's payload. */
    int mtu();

    /** Whether the link is up. */
    boolean linkUp();

    /** Number of queue pairs. */
    int queuePairs();

    /** A queue pair for one owner at a time; an error naming it when it has one. */
    NetQueue openQueue(int pair) throws VirtioException;

    /** Calls the listener, on a thread of the core, after every change of {@link #linkUp}. */
    AutoCloseable onLinkChange(Runnable listener);
}
