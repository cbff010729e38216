package virtio.api.transport;

import org.osgi.annotation.versioning.ConsumerType;

import virtio.api.VirtioException;

import java.util.List;

/**
 * Opens devices of one kind of transport; a service, one per transport bundle, which also registers
 * its {@link virtio.api.map.MapOps}.
 *
 * <p>When the service goes, the core lets go of its devices before the unregistration returns,
 * unless they take longer than the operator lets it wait; a device end in the same bundle goes as
 * {@link Exporter} says. Thread-safe.
 */
@ConsumerType
public interface TransportProvider {
    /** The part of an address before the first colon, as {@code mmio}. */
    String name();

    /**
     * What could be attached now, and for what cannot, why. Touches nothing the user has not named.
     */
    List<Candidate> discover();

    /**
     * Takes one device, exclusively.
     *
     * @param address the part of an address behind the first colon
     * @throws VirtioException when it cannot be had, in one sentence that says what to do
     */
    Transport open(String address) throws VirtioException;
}
