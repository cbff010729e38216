package virtio.api.transport;

import org.osgi.annotation.versioning.ConsumerType;

import virtio.api.VirtioException;

/**
 * Offers devices to drivers of others; a service of a transport that has a device end.
 *
 * <p>When the service goes, the core closes its exports before the unregistration returns, unless
 * they take longer than the operator lets it wait. A transport that stops closes those that are
 * left. Thread-safe.
 */
@ConsumerType
public interface Exporter {
    /** The part of an address before the first colon, as for {@link TransportProvider#name}. */
    String name();

    /** Why nothing can be offered here, and what to do; null when it can. */
    default String unavailable() {
        return null;
    }

    /**
     * Offers the device until the export is closed.
     *
     * @param address the part of an address behind the first colon
     * @throws VirtioException when the address is taken or cannot be had
     */
    Export export(String address, ExportedDevice device) throws VirtioException;
}
