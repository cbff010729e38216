package virtio.api;

import org.osgi.annotation.versioning.ProviderType;

import virtio.api.status.DeviceSnapshot;
import virtio.api.status.ExportSnapshot;
import virtio.api.status.SwapResult;
import virtio.api.transport.Candidate;

import java.util.List;

/**
 * Where drivers meet devices; the core's service for operators.
 *
 * <p>Attachments and exports are declared: they hold until they are taken back, and work whenever
 * the bundles they need are there, whatever comes first. Thread-safe.
 */
@ProviderType
public interface VirtioBus {
    /**
     * Offers a backend at an address.
     *
     * @param backend as {@code ram:64MiB} or {@code file:/x.img}
     * @param address as {@code mmio:emu0} or {@code vhost-user:/tmp/x.sock}
     * @throws VirtioException when it does not work now, or the address is exported already;
     *     nothing is declared then
     */
    ExportSnapshot export(String backend, String address) throws VirtioException;

    /**
     * Takes an export back.
     *
     * @throws VirtioException when nothing is exported there, or the transport does not let go in
     *     time
     */
    void unexport(String address) throws VirtioException;

    /**
     * Attaches a device.
     *
     * @param name unique in the container; null for the first free of {@code blk0}, {@code net0}, …
     * @return the device, {@link DeviceSnapshot.State#ACTIVE}
     * @throws VirtioException when it does not work now; nothing is declared then
     */
    DeviceSnapshot attach(String address, String name) throws VirtioException;

    /**
     * Lets a device go: drained, reset, everything given back.
     *
     * @throws VirtioException when there is none of that name, or it does not let go in time
     */
    void detach(String name) throws VirtioException;

    /**
     * Moves a device to another address while its consumers go on.
     *
     * @throws VirtioException when the new address is not the same device or does not work; the old
     *     one then serves on
     */
    SwapResult swap(String name, String address) throws VirtioException;

    /** All attachments, by name. */
    List<DeviceSnapshot> devices();

    /** All exports, by address. */
    List<ExportSnapshot> exports();

    /** What every transport could attach or says it cannot, and transports that were refused. */
    List<Candidate> candidates();
}
