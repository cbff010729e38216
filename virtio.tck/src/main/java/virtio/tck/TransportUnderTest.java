package virtio.tck;

import virtio.api.map.MapOps;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

import java.lang.foreign.MemorySegment;
import java.util.Set;

/**
 * A transport as the contracts meet it: its services as a bundle would register them, and an
 * address that both of its ends understand. Made anew for each test.
 */
public interface TransportUnderTest extends AutoCloseable {
    /** The driver end. */
    TransportProvider provider();

    /** The device end. */
    Exporter exporter();

    /** The map operations that go with {@link #provider}. */
    MapOps mapOps();

    /** The part of an address behind the first colon, with nothing there yet. */
    String address();

    /**
     * Memory at an address that {@link DriverMemory#translate} gave, as the device end reaches it;
     * {@code MemorySegment.ofAddress(address).reinterpret(sizeBytes)} for most.
     */
    MemorySegment at(long address, long sizeBytes);

    /** Feature bits that the transport can carry; 128 unless its wire has room for fewer. */
    default int featureBits() {
        return 128;
    }

    /** What the transport's wire has no word for; tests of it are skipped. */
    default Set<Unsaid> unsaid() {
        return Set.of();
    }

    /** What some wires have no word for. */
    enum Unsaid {
        /** The driver's writes to the configuration do not reach the device. */
        CONFIG_WRITES,
        /** The device cannot say that it needs a reset. */
        NEEDS_RESET,
        /** The number of a packed queue's descriptors is a power of two. */
        ODD_QUEUE_SIZES,
        /** A driver is not told that its device is withdrawn; its requests wait. */
        WITHDRAWAL
    }

    /**
     * Called when both ends are closed and everything was unmapped: stops what the services run,
     * and throws when a descriptor, a mapping or a thread is left.
     */
    @Override
    void close();
}
