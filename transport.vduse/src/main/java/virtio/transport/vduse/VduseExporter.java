package virtio.transport.vduse;

import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Deactivate;
import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.Designate;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.Exporter;
import virtio.linux.Linux;

import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;

/**
 * Offers devices to the drivers of this machine's kernel, and to whoever opens vhost-vdpa.
 *
 * <p>Address: a name, as {@code disk0}, with options behind it, as {@code disk0,keep,split}. The
 * device is made, served and put on the vDPA bus. Where a device of that name is there and nobody
 * serves it, because its server has died or kept it, it is served on from where that one stopped.
 *
 * <p>When the export is closed the device is taken off the bus and removed; with {@code keep} it
 * stays, and its driver's requests wait for the next export of that name. With {@code split} it
 * offers no packed queues.
 */
@Component(configurationPid = "virtio.transport.vduse")
@Designate(ocd = VduseExporter.Configuration.class)
public final class VduseExporter implements Exporter {
    static final String NAME = "vduse";

    private static final String KEEP = "keep";
    private static final String SPLIT = "split";

    /** What a file and a device can be called without surprises, and fits. */
    private static final Pattern NAMES = Pattern.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}");

    /** Set by the operator. */
    @ObjectClassDefinition(
            name = "Virtio VDUSE transport",
            description = "Offers devices to this machine's kernel")
    @interface Configuration {
        @AttributeDefinition(
                description =
                        "Folder for files in which queues keep what is in flight, so that a device"
                                + " survives the death of this process; a reboot should clear it")
        String stateFolder() default "/run/virtio";
    }

    private final Set<VduseExport> exports = ConcurrentHashMap.newKeySet();
    private final Vduse kernel;
    private final Path stateFolder;

    /** Called by the framework. */
    @Activate
    public VduseExporter(Configuration configuration) {
        this(new VduseControl(new VdpaBus(Path.of("/"))), Path.of(configuration.stateFolder()));
    }

    VduseExporter(Vduse kernel, Path stateFolder) {
        this.kernel = kernel;
        this.stateFolder = stateFolder;
    }

    @Override
    public String name() {
        return NAME;
    }

    @Override
    public String unavailable() {
        return Linux.unavailable().orElseGet(kernel::unavailable);
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        String whole = NAME + ":" + address;
        String[] parts = address.split(",", -1);
        String name = parts[0];
        List<String> options = List.of(parts).subList(1, parts.length);
        String unavailable = unavailable();
        if (unavailable != null) {
            throw new VirtioException(whole + ": " + unavailable);
        }
        if (!NAMES.matcher(name).matches()
                || name.equals("control")
                || !List.of(KEEP, SPLIT).containsAll(options)) {
            throw new VirtioException(
                    ("%s: a VDUSE device is called by 1 to 64 letters, digits, dots, hyphens and"
                                    + " underscores, with ,%s behind that to be kept, and ,%s to"
                                    + " have no packed queues")
                            .formatted(whole, KEEP, SPLIT));
        }
        Features held = options.contains(SPLIT) ? Features.of(Feature.RING_PACKED) : Features.NONE;
        Features offered = VduseExport.carried(device).andNot(held);
        boolean keep = options.contains(KEEP);
        VduseExport export =
                VduseExport.open(
                        whole, name, keep, offered, kernel, stateFolder, device, exports::remove);
        exports.add(export);
        return export;
    }

    /** Closes all exports that are left. */
    @Deactivate
    void close() {
        exports.forEach(VduseExport::close);
    }
}
