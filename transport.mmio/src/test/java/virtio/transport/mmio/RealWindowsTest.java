package virtio.transport.mmio;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Discovery and refusals on a machine that consists of files; the rest is done in guests. */
@Timeout(30)
class RealWindowsTest {
    private static final long WINDOW = 0x1e00;

    @TempDir Path root;
    private final int mappings = Mapping.live();
    private final int descriptors = FileDescriptor.live();
    private RealWindows windows;

    @BeforeEach
    void make() throws Exception {
        Files.createDirectories(root.resolve("dev"));
        Files.write(root.resolve("dev/mem"), new byte[8192]);
        write("proc/iomem", "");
        write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "2\n");
        windows = new RealWindows(root, 2);
    }

    @AfterEach
    void nothingIsLeft() {
        assertEquals(mappings, Mapping.live());
        assertEquals(descriptors, FileDescriptor.live());
    }

    private void write(String path, String text) throws Exception {
        Path file = root.resolve(path);
        Files.createDirectories(file.getParent());
        Files.writeString(file, text);
    }

    private Path device(String name, String driver) throws Exception {
        Path device = Files.createDirectories(root.resolve("sys/bus/platform/devices/" + name));
        if (driver != null) {
            Path target = Files.createDirectories(root.resolve("sys/drivers/" + driver));
            Files.createSymbolicLink(device.resolve("driver"), target);
        }
        return device;
    }

    private Candidate only() {
        List<Candidate> found = windows.discover();
        assertEquals(1, found.size(), found::toString);
        return found.getFirst();
    }

    private String refusal(String address) {
        return assertThrows(VirtioException.class, () -> windows.open(address)).getMessage();
    }

    private void registers(int magic, int version, int device) throws Exception {
        ByteBuffer memory = ByteBuffer.allocate(8192).order(ByteOrder.LITTLE_ENDIAN);
        memory.putInt((int) WINDOW, magic);
        memory.putInt((int) WINDOW + 4, version).putInt((int) WINDOW + 8, device);
        Files.write(root.resolve("dev/mem"), memory.array());
    }

    @Test
    void windowsOfAcpiAreFoundByTheirResource() throws Exception {
        device("LNRO0005:00", null);
        device("PNP0C0C:00", "button");
        write("proc/iomem", "fe000000-feffffff : x\n  feb02e00-feb02fff : LNRO0005:00\n");
        Candidate found = only();
        assertEquals("mmio:0xfeb02e00", found.address());
        assertTrue(found.description().contains("polled"), found::toString);
        assertEquals(null, found.unavailable());
    }

    @Test
    void windowsOfADeviceTreeAreFoundByTheirName() throws Exception {
        Path node = Files.createDirectories(device("a003e00.virtio_mmio", null).resolve("of_node"));
        Files.writeString(node.resolve("compatible"), "virtio,mmio\0");
        assertEquals("mmio:0xa003e00", only().address());
    }

    @Test
    void interruptsComeByTheUioDeviceThatIsBound() throws Exception {
        Path device = device("LNRO0005:00", PlatformDevice.UIO_DRIVER);
        Files.createDirectories(device.resolve("uio/uio3"));
        Files.createFile(root.resolve("dev/uio3"));
        write("proc/iomem", "feb02e00-feb02fff : LNRO0005:00\n");
        Candidate found = only();
        assertTrue(found.description().endsWith("/dev/uio3"), found::toString);
        assertEquals(null, found.unavailable());
    }

    @Test
    void whatCannotBeUsedSaysWhyAndWhatToDo() throws Exception {
        device("LNRO0005:00", "virtio-mmio");
        write("proc/iomem", "00000000-00000000 : LNRO0005:00\n");
        assertEquals(
                "bound to virtio-mmio: give it to user space with:"
                        + " echo LNRO0005:00 > /sys/bus/platform/drivers/virtio-mmio/unbind",
                only().unavailable());
        Files.delete(root.resolve("sys/bus/platform/devices/LNRO0005:00/driver"));
        assertTrue(only().unavailable().contains("/proc/iomem"));
        write("proc/iomem", "feb02e00-feb02fff : LNRO0005:00\n");
        write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1\n");
        write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "7\n");
        assertEquals(
                "huge pages: 2 needed, 1 free; reserve more with: echo 8 > "
                        + root
                        + "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
                        + ", or lower hugePages of virtio.transport.mmio",
                only().unavailable());
        Files.delete(root.resolve("dev/mem"));
        assertTrue(only().unavailable().contains("run as root"));
    }

    @Test
    void aWindowThatAKernelDriverHasIsRefused() throws Exception {
        device("LNRO0005:00", "virtio-mmio");
        write("proc/iomem", "00001e00-00001fff : LNRO0005:00\n");
        registers(MmioRegisters.MAGIC, 2, 2);
        assertTrue(refusal("0x1e00").contains("bound to virtio-mmio"));
    }

    @Test
    @Tag("DRV-MMIO-004")
    @Tag("DRV-MMIO-005")
    @Tag("DRV-MMIO-006")
    void whatIsNoDeviceOfVersion2IsRefusedByName() throws Exception {
        assertTrue(refusal("0x1e00").contains("no virtio window: magic value 0x00000000"));
        registers(MmioRegisters.MAGIC, 1, 2);
        assertTrue(refusal("0x1e00").contains("version 1 (legacy)"));
        registers(MmioRegisters.MAGIC, 2, 0);
        assertTrue(refusal("0x1e00").contains("no device behind it"));
    }

    @Test
    void anotherProcessKeepsItsWindow() throws Exception {
        registers(MmioRegisters.MAGIC, 1, 2);
        try (FileDescriptor other =
                FileDescriptor.open(root.resolve("dev/mem"), FileDescriptor.O_RDWR)) {
            other.lock(WINDOW, 0x200);
            assertTrue(refusal("0x1e00").contains("another process"));
            assertTrue(refusal("0x1c00").contains("magic"));
        }
    }

    @Test
    void addressesAreHexadecimalAndAligned() {
        for (String address : List.of("0x", "0xzz", "0x1e01", "0x0", "0xffffffffffffffff")) {
            assertTrue(refusal(address).contains("is no address"), address);
        }
        assertTrue(refusal("0x1e00,interrupt=x").contains("interrupt=poll"));
        assertTrue(refusal("0x1e00,interrupt=/dev/uio9").contains("no such device"));
    }

    @Test
    void withoutTheRightsTheReasonIsNamed() throws Exception {
        Files.delete(root.resolve("dev/mem"));
        assertTrue(refusal("0x1e00").contains("there is no such device here"));
    }
}
