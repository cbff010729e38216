package virtio.tck;

import virtio.api.map.MapOps;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

import java.lang.foreign.MemorySegment;

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

    /**
     * Called when both ends are closed and everything was unmapped: stops what the services run,
     * and throws when a descriptor, a mapping or a thread is left.
     */
    @Override
    void close();
}
