package virtio.transport.vduse;

import virtio.api.VirtioException;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The kernel's vDPA bus as sysfs shows it, and what is missing where there is none.
 *
 * <p>Thread-safe; nothing is kept.
 */
final class VdpaBus {
    /** The module behind /dev/vhost-vdpa-N, and what a kernel is built with to have it. */
    static final Module VHOST_VDPA = new Module("vhost_vdpa", "CONFIG_VHOST_VDPA");

    /** The module behind /dev/vduse. */
    static final Module VDUSE = new Module("vduse", "CONFIG_VDPA_USER");

    /** A kernel module and the option that builds it. */
    record Module(String name, String option) {}

    /**
     * A device on the bus.
     *
     * @param driver that it is bound to, as {@code vhost_vdpa}; null for none
     * @param file its character device; null unless that is vhost_vdpa's
     */
    record Device(String name, String driver, Path file) {}

    private static final String DEVICES = "sys/bus/vdpa/devices";
    private static final String VDUSE_DEVICES = "sys/class/vduse";
    private static final String FILE = "vhost-vdpa-";

    private final Path root;

    /** Of this machine, or what stands for it below another root. */
    VdpaBus(Path root) {
        this.root = root;
    }

    /** All devices on the bus, by name; none where there is no bus. */
    List<Device> devices() {
        List<Device> devices = new ArrayList<>();
        Path folder = root.resolve(DEVICES);
        if (Files.isDirectory(folder)) {
            try (Stream<Path> entries = Files.list(folder)) {
                entries.sorted().forEach(entry -> devices.add(device(entry)));
            } catch (IOException e) {
                // Without the right to look there is nothing to see.
            }
        }
        return devices;
    }

    private Device device(Path entry) {
        String driver = null;
        Path file = null;
        try {
            driver = entry.resolve("driver").toRealPath().getFileName().toString();
            try (DirectoryStream<Path> own = Files.newDirectoryStream(entry, FILE + "*")) {
                for (Path found : own) {
                    file = root.resolve("dev").resolve(found.getFileName().toString());
                }
            }
        } catch (IOException e) {
            // Unbound, or just leaving.
        }
        return new Device(entry.getFileName().toString(), driver, file);
    }

    /** The device of that name, or null. */
    Device device(String name) {
        return devices().stream().filter(d -> d.name().equals(name)).findFirst().orElse(null);
    }

    /** Whether the device of that name is there and no VDUSE one, which lies below its server's. */
    boolean isAnother(String name) {
        Path parent;
        try {
            parent = root.resolve(DEVICES).resolve(name).toRealPath().getParent();
        } catch (IOException e) {
            return false;
        }
        try {
            return !parent.equals(root.resolve(VDUSE_DEVICES).resolve(name).toRealPath());
        } catch (IOException e) {
            return true;
        }
    }

    /**
     * The character device behind an address.
     *
     * @param address its path, or the name of a device on the bus
     * @throws VirtioException when there is none, in one sentence that says what to do
     */
    Path file(String address) throws VirtioException {
        if (address.startsWith("/")) {
            try {
                Path file = Path.of(address);
                if (!Files.exists(file)) {
                    throw new VirtioException("%s: %s".formatted(address, without(VHOST_VDPA)));
                }
                return file;
            } catch (InvalidPathException e) {
                throw new VirtioException("no path: " + e.getMessage(), e);
            }
        }
        Device device = device(address);
        if (device == null) {
            List<String> names = devices().stream().map(Device::name).toList();
            throw new VirtioException(
                    "%s: no such device on the vDPA bus, %s"
                            .formatted(
                                    address,
                                    names.isEmpty()
                                            ? without(VHOST_VDPA)
                                            : "which has " + String.join(", ", names)));
        }
        if (device.file() == null) {
            throw new VirtioException(address + ": " + withoutFile(device));
        }
        return device.file();
    }

    /** Why a device has no character device, and how to give it to vhost_vdpa. */
    String withoutFile(Device device) {
        String bound = device.driver() == null ? "no driver" : device.driver();
        return "bound to %s; %s".formatted(bound, rebind(device));
    }

    private String rebind(Device device) {
        if (!isLoaded(VHOST_VDPA)) {
            return missing(VHOST_VDPA);
        }
        String drivers = "/sys/bus/vdpa/drivers/";
        String unbind =
                device.driver() == null
                        ? ""
                        : "echo %s > %s%s/unbind; "
                                .formatted(device.name(), drivers, device.driver());
        return "as root, %secho %s > %svhost_vdpa/bind".formatted(unbind, device.name(), drivers);
    }

    /** Why there is no device file of a module. */
    private String without(Module module) {
        return isLoaded(module)
                ? "there is no such device: vdpa dev add makes one, and binding it to vhost_vdpa"
                        + " gives it a file"
                : missing(module);
    }

    boolean isLoaded(Module module) {
        return Files.exists(root.resolve("sys/module").resolve(module.name()));
    }

    /** Says of a module that is not loaded how to get it. */
    String missing(Module module) {
        String load = "the kernel module %s is not loaded: as root, modprobe %s";
        String release;
        try {
            release = Files.readString(root.resolve("proc/sys/kernel/osrelease")).strip();
        } catch (IOException e) {
            return load.formatted(module.name(), module.name());
        }
        Path modules = root.resolve("lib/modules").resolve(release);
        // Files have hyphens or underscores as somebody liked it; the folder may be any.
        Pattern file =
                Pattern.compile(
                        "(.*/)?%s\\.ko(\\..*)?".formatted(module.name().replace("_", "[-_]")));
        for (String list : List.of("modules.dep", "modules.builtin")) {
            try (Stream<String> lines = Files.lines(modules.resolve(list))) {
                if (lines.anyMatch(line -> file.matcher(line.split(":")[0]).matches())) {
                    return load.formatted(module.name(), module.name());
                }
            } catch (IOException e) {
                return ("the kernel module %s is not loaded, and without %s nobody can say here"
                                + " whether kernel %s has it: on the host, modprobe %s")
                        .formatted(module.name(), modules, release, module.name());
            }
        }
        return ("kernel %s has no module %s: it takes one built with %s, as Debian 12's"
                        + " linux-image-6.12-amd64 is")
                .formatted(release, module.name(), module.option());
    }
}
