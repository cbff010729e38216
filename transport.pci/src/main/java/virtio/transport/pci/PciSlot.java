package virtio.transport.pci;

import virtio.api.DeviceType;
import virtio.linux.Linux;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;

/**
 * A virtio function as sysfs shows it (Documentation/PCI/sysfs-pci.rst), bound or not; looking
 * touches no device.
 *
 * @param function its address, as {@code 0000:00:04.0}
 * @param deviceType a virtio device type
 * @param driver the kernel's driver that it is bound to, null when there is none
 * @param group the number of its IOMMU group, null when it has none
 */
record PciSlot(String function, int deviceType, String driver, String group) {
    /** Where Linux shows them. */
    static final Path DEVICES = Path.of("/sys/bus/pci/devices");

    private static final String OURS = "vfio-pci";
    private static final Pattern ADDRESS =
            Pattern.compile("([0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]");

    /** Whether that is the address of a real function, not the name of an emulated one. */
    static boolean isFunction(String address) {
        return ADDRESS.matcher(address).matches();
    }

    /** With its domain, 0 when it is not said. */
    static String whole(String address) {
        return address.indexOf(':') == 2 ? "0000:" + address : address;
    }

    /** All virtio functions, by address; none on a machine without PCI. */
    static List<PciSlot> all(Path devices) {
        List<PciSlot> found = new ArrayList<>();
        try (DirectoryStream<Path> each = Files.newDirectoryStream(devices)) {
            for (Path device : each) {
                of(devices, device.getFileName().toString()).ifPresent(found::add);
            }
        } catch (IOException e) {
            // No PCI here.
        }
        found.sort((one, other) -> one.function.compareTo(other.function));
        return found;
    }

    /** One function; empty when it is not there or no virtio device. */
    static Optional<PciSlot> of(Path devices, String function) {
        Path device = devices.resolve(function);
        try {
            int type =
                    PciTransport.deviceType(
                            number(device, "vendor"),
                            number(device, "device"),
                            number(device, "subsystem_device"));
            return type < 0
                    ? Optional.empty()
                    : Optional.of(
                            new PciSlot(
                                    function,
                                    type,
                                    linked(device, "driver"),
                                    linked(device, "iommu_group")));
        } catch (IOException | NumberFormatException e) {
            return Optional.empty();
        }
    }

    private static int number(Path device, String attribute) throws IOException {
        return Integer.decode(Files.readString(device.resolve(attribute)).strip());
    }

    private static String linked(Path device, String link) throws IOException {
        Path path = device.resolve(link);
        return Files.isSymbolicLink(path)
                ? Files.readSymbolicLink(path).getFileName().toString()
                : null;
    }

    /** As {@code virtio-blk, driver vfio-pci}. */
    String description() {
        return "virtio-%s, driver %s"
                .formatted(DeviceType.name(deviceType), driver == null ? "none" : driver);
    }

    /**
     * Why it cannot be driven from here, with what to do; null when nothing is known against it.
     */
    String unavailable() {
        if (!OURS.equals(driver)) {
            String device = DEVICES.resolve(function).toString();
            return "bound to %s: bind vfio-pci with \"modprobe vfio-pci; "
                            .formatted(driver == null ? "no driver" : driver)
                    + "echo vfio-pci > %s/driver_override; ".formatted(device)
                    + (driver == null
                            ? ""
                            : "echo %s > %s/driver/unbind; ".formatted(function, device))
                    + "echo %s > /sys/bus/pci/drivers_probe\"".formatted(function);
        }
        if (group == null) {
            return "no IOMMU group: turn the IOMMU on (intel_iommu=on for the kernel), or load vfio"
                    + " with enable_unsafe_noiommu_mode=1";
        }
        return Linux.unavailable(VfioGroup.file(group))
                .map(why -> why + ": give this user the right to read and write it")
                .orElse(null);
    }
}
