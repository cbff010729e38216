package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.tck.TestDevice;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Discovery, on folders as sysfs has them. */
class PciSlotTest {
    @TempDir Path root;

    private void device(String function, String ids, String driver, String group)
            throws IOException {
        Path device = Files.createDirectories(root.resolve(function));
        String[] id = ids.split(" ");
        Files.writeString(device.resolve("vendor"), id[0] + "\n");
        Files.writeString(device.resolve("device"), id[1] + "\n");
        Files.writeString(device.resolve("subsystem_device"), id[2] + "\n");
        if (driver != null) {
            Files.createSymbolicLink(
                    device.resolve("driver"), Path.of("../../bus/pci/drivers", driver));
        }
        if (group != null) {
            Files.createSymbolicLink(
                    device.resolve("iommu_group"), Path.of("../../kernel/iommu_groups", group));
        }
    }

    @Test
    void virtioFunctionsAreFoundBoundOrNot() throws Exception {
        device("0000:00:05.0", "0x1af4 0x1042 0x1100", "virtio-pci", "3");
        device("0000:00:04.0", "0x1af4 0x1000 0x0001", null, null);
        device("0000:00:02.0", "0x8086 0x10d3 0x0000", "e1000e", "1");
        device("0000:00:06.0", "0x1af4 0x1110 0x1100", null, null);
        Files.createDirectories(root.resolve("0000:00:07.0"));
        List<PciSlot> found = PciSlot.all(root);
        assertEquals(
                List.of("0000:00:04.0", "0000:00:05.0"),
                found.stream().map(PciSlot::function).toList());
        assertEquals(1, found.getFirst().deviceType(), "transitional");
        assertEquals("virtio-blk, driver virtio-pci", found.getLast().description());
        assertEquals(List.of(), PciSlot.all(root.resolve("none")));
    }

    @Test
    void reasonSaysWhatToDo() throws Exception {
        String bound = new PciSlot("0000:00:05.0", 2, "virtio-pci", "3").unavailable();
        assertTrue(bound.startsWith("bound to virtio-pci: bind vfio-pci with"), bound);
        assertTrue(bound.contains("echo 0000:00:05.0 > /sys/bus/pci/devices/0000:00:05.0/driver/"));
        String unbound = new PciSlot("0000:00:05.0", 2, null, "3").unavailable();
        assertTrue(unbound.startsWith("bound to no driver"), unbound);
        assertFalse(unbound.contains("unbind"), unbound);
        String lonely = new PciSlot("0000:00:05.0", 2, "vfio-pci", null).unavailable();
        assertTrue(lonely.contains("IOMMU"), lonely);
        String missing = new PciSlot("0000:00:05.0", 2, "vfio-pci", "999999").unavailable();
        assertTrue(missing.contains("/dev/vfio/999999: no such file"), missing);
    }

    @Test
    void addressesOfFunctionsAreNoNames() {
        assertTrue(PciSlot.isFunction("0000:00:04.0"));
        assertTrue(PciSlot.isFunction("00:1f.7"));
        assertFalse(PciSlot.isFunction("emu0"));
        assertFalse(PciSlot.isFunction("0000:00:04.8"));
        assertEquals("0000:00:04.0", PciSlot.whole("00:04.0"));
        assertEquals("0001:00:04.0", PciSlot.whole("0001:00:04.0"));
        PciProvider provider = new PciProvider(8, 4);
        String name =
                assertThrows(
                                VirtioException.class,
                                () -> provider.export("0000:00:04.0", new TestDevice(1, 0)))
                        .getMessage();
        assertTrue(name.contains("choose a name"), name);
        String absent =
                assertThrows(VirtioException.class, () -> provider.open("ffff:ff:1f.7"))
                        .getMessage();
        assertTrue(absent.contains("pci:ffff:ff:1f.7 does not exist"), absent);
    }
}
