package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.Features;
import virtio.api.Registration;
import virtio.api.VirtioException;

import java.util.List;
import java.util.Set;

/**
 * A network card; an OSGi service with the property {@value virtio.api.VirtioDevice#NAME}.
 *
 * <p>The service object stays the same while the transport below it is swapped or reconnected;
 * frames in flight meanwhile may be dropped and are then counted. Thread-safe, but for {@link
 * NetQueue}.
 */
@ProviderType
public interface NetDevice {
    /** The name the device was attached by, as {@code net0}. */
    String name();

    /** The hardware address, 6 bytes; one of our own where the device has none. */
    byte[] macAddress();

    /** Most bytes of a frame's payload; 1500 where the device does not say. */
    int mtu();

    /** Whether the link is up; always where the device does not say. */
    boolean linkUp();

    /** Megabits a second; -1 when unknown. */
    int speedMegabits();

    /** Whether it sends and receives at once. */
    Duplex duplex();

    /** Number of queue pairs. */
    int queuePairs();

    /** What was negotiated: which offloads {@link PacketBuffer} may carry, among others. */
    Features features();

    /**
     * A queue pair for one owner at a time.
     *
     * @throws VirtioException when it has one, or the card is gone
     */
    NetQueue openQueue(int pair) throws VirtioException;

    /**
     * A queue pair whose frames go to a handler, on a thread of the card.
     *
     * @throws VirtioException as {@link #openQueue}
     */
    FramePort openPort(int pair, FrameHandler handler) throws VirtioException;

    /** Calls the listener, on a thread of the core, after every change of {@link #linkUp}. */
    Registration onLinkChange(Runnable listener);

    /**
     * Shows the frames that consumers send and receive to a tap until the answer is closed; one tap
     * at a time. What a pair without an owner receives is not shown.
     */
    Registration capture(FrameTap tap) throws VirtioException;

    /** What was set by {@link #receiveModes(Set)}; none at first. */
    Set<ReceiveMode> receiveModes();

    /**
     * Sets what is received, in place of what was set before; kept over a swap.
     *
     * @throws VirtioException when the device cannot, naming the feature that it lacks
     */
    void receiveModes(Set<ReceiveMode> modes) throws VirtioException;

    /** Sets the further addresses that are received; errors as {@link #receiveModes(Set)}. */
    void filterAddresses(List<byte[]> unicast, List<byte[]> multicast) throws VirtioException;

    /** Receives frames of a VLAN, 0 to 4095, as well; errors as {@link #receiveModes(Set)}. */
    void addVlan(int vlan) throws VirtioException;

    /** Receives no frames of a VLAN any more; errors as {@link #receiveModes(Set)}. */
    void removeVlan(int vlan) throws VirtioException;

    /** Sets the hardware address; errors as {@link #receiveModes(Set)}. */
    void macAddress(byte[] address) throws VirtioException;

    /** Which offloads received frames may carry: at first all that were negotiated. */
    Features guestOffloads();

    /**
     * Sets which offloads received frames may carry; kept over a swap.
     *
     * @param offloads GUEST features out of {@link #features}, as GUEST_CSUM or GUEST_TSO4
     * @throws IllegalArgumentException when others are among them
     * @throws VirtioException as {@link #receiveModes(Set)}
     */
    void guestOffloads(Features offloads) throws VirtioException;

    /** What the device can hash; nothing where it has neither RSS nor HASH_REPORT. */
    Set<HashType> hashTypes();

    /** What was set by {@link #hash(HashConfig)}; null while hashing is off. */
    HashConfig hash();

    /**
     * Has received packets hashed, and spread over the queue pairs by it; kept over a swap. With
     * {@link NetFeature#HASH_REPORT} their {@link PacketBuffer#hash} is filled in.
     *
     * @throws IllegalArgumentException when a type, the key, the table or a pair is not one that
     *     the device takes, naming value and limit
     * @throws VirtioException as {@link #receiveModes(Set)}
     */
    void hash(HashConfig config) throws VirtioException;

    /** What was set for a queue pair, as the device has answered it where it can be asked. */
    Coalescing coalescing(int pair);

    /**
     * Delays the notifications of all queues; kept over a swap; errors as {@link
     * #receiveModes(Set)}.
     */
    void coalescing(Coalescing coalescing) throws VirtioException;

    /** Delays the notifications of one queue pair; otherwise as {@link #coalescing(Coalescing)}. */
    void coalescing(int pair, Coalescing coalescing) throws VirtioException;

    /** What went through so far. */
    NetStatistics statistics();
}
