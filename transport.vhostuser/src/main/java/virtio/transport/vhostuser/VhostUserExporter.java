package virtio.transport.vhostuser;

import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Deactivate;

import virtio.api.DeviceType;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.Exporter;
import virtio.linux.Linux;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Offers devices to vhost-user front-ends; the address is the path of a socket that is made, with
 * options as for {@link VhostUserProvider}: a feature that is not to be used is not offered.
 *
 * <p>One front-end at a time is served, the next one when it has left.
 */
@Component
public final class VhostUserExporter implements Exporter {
    private final Set<VhostUserExport> exports = ConcurrentHashMap.newKeySet();

    @Override
    public String name() {
        return VhostUser.NAME;
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        String unavailable = Linux.unavailable().orElse(null);
        if (unavailable != null) {
            throw new VirtioException(VhostUser.NAME + ":" + address + ": " + unavailable);
        }
        Address parsed = Address.parse(address);
        if (parsed.deviceType() != 0 && parsed.deviceType() != device.deviceType()) {
            throw new VirtioException(
                    "%s:%s: the device is of type %s"
                            .formatted(
                                    VhostUser.NAME, address, DeviceType.name(device.deviceType())));
        }
        VhostUserExport export =
                new VhostUserExport(
                        VhostUser.NAME + ":" + address,
                        parsed.path(),
                        parsed.without(device.deviceType()),
                        device,
                        exports::remove);
        exports.add(export);
        return export;
    }

    /** Closes all exports that are left. */
    @Deactivate
    void close() {
        exports.forEach(VhostUserExport::close);
    }
}
