package virtio.transport.mmio;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A virtio-mmio window that the machine's firmware describes: by ACPI ({@code LNRO0005}), by a
 * device tree ({@code virtio,mmio}), or by the kernel's command line. Read from files of the
 * kernel, the window itself is not touched.
 *
 * @param name of the platform device
 * @param address of its first register; 0 when it is not to be known without the rights
 * @param sizeBytes of the window
 * @param driver what it is bound to; null for nothing
 * @param uio the UIO device that has its interrupt; null when there is none
 */
record PlatformDevice(String name, long address, long sizeBytes, String driver, Path uio) {
    /** The registers, and 256 bytes of configuration. */
    static final long SIZE_BYTES = 0x200;

    /** The driver of UIO that serves any platform device with an interrupt. */
    static final String UIO_DRIVER = "uio_pdrv_genirq";

    private static final Pattern ACPI = Pattern.compile("LNRO0005:.*");
    private static final Pattern COMMAND_LINE = Pattern.compile("virtio-mmio\\..*");

    /** A device of a device tree is called by its address, as {@code a003e00.virtio_mmio}. */
    private static final Pattern DEVICE_TREE = Pattern.compile("([0-9a-f]{1,15})\\..*");

    private static final Pattern RESOURCE = Pattern.compile("\\s*([0-9a-f]+)-([0-9a-f]+) : (.*)");

    /**
     * What there is, by name.
     *
     * @param root the root of the file system
     */
    static List<PlatformDevice> find(Path root) {
        List<PlatformDevice> found = new ArrayList<>();
        Path folder = root.resolve("sys/bus/platform/devices");
        Map<String, long[]> resources = null;
        try (DirectoryStream<Path> devices = Files.newDirectoryStream(folder)) {
            for (Path device : devices) {
                if (isWindow(device)) {
                    resources = resources == null ? resources(root) : resources;
                    found.add(read(root, device, resources));
                }
            }
        } catch (IOException e) {
            // No platform devices then.
        }
        found.sort(Comparator.comparing(PlatformDevice::name));
        return found;
    }

    private static boolean isWindow(Path device) throws IOException {
        String name = device.getFileName().toString();
        if (ACPI.matcher(name).matches() || COMMAND_LINE.matcher(name).matches()) {
            return true;
        }
        Path compatible = device.resolve("of_node/compatible");
        return Files.exists(compatible)
                && List.of(Files.readString(compatible, StandardCharsets.ISO_8859_1).split("\0"))
                        .contains("virtio,mmio");
    }

    private static PlatformDevice read(Path root, Path device, Map<String, long[]> resources)
            throws IOException {
        String name = device.getFileName().toString();
        long[] range = resources.getOrDefault(name, new long[] {0, 0});
        if (range[0] == 0) {
            Matcher tree = DEVICE_TREE.matcher(name);
            range = new long[] {tree.matches() ? Long.parseLong(tree.group(1), 16) : 0, 0};
        }
        Path driver = device.resolve("driver");
        Path uio = null;
        Path uios = device.resolve("uio");
        if (Files.isDirectory(uios)) {
            try (DirectoryStream<Path> lines = Files.newDirectoryStream(uios, "uio*")) {
                for (Path line : lines) {
                    uio = root.resolve("dev").resolve(line.getFileName().toString());
                }
            }
        }
        return new PlatformDevice(
                name,
                range[0],
                range[1] == 0 ? SIZE_BYTES : range[1],
                Files.exists(driver) ? driver.toRealPath().getFileName().toString() : null,
                uio);
    }

    /** First address and length by name; addresses are all 0 for who may not know them. */
    private static Map<String, long[]> resources(Path root) {
        Map<String, long[]> resources = new HashMap<>();
        try {
            for (String line : Files.readAllLines(root.resolve("proc/iomem"))) {
                Matcher resource = RESOURCE.matcher(line);
                if (resource.matches()) {
                    long first = Long.parseUnsignedLong(resource.group(1), 16);
                    long last = Long.parseUnsignedLong(resource.group(2), 16);
                    resources.putIfAbsent(
                            resource.group(3),
                            new long[] {first, first == 0 ? 0 : last - first + 1});
                }
            }
        } catch (IOException e) {
            // As for who may not know them.
        }
        return resources;
    }

    /** The command that takes it away from the kernel's driver. */
    String unbind() {
        return "echo %s > /sys/bus/platform/drivers/%s/unbind".formatted(name, driver);
    }
}
