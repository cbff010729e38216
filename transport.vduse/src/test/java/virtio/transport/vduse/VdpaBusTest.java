package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.linux.Memory;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** What is said about machines with and without vDPA, each as sysfs would show it. */
class VdpaBusTest {
    @TempDir private Path root;
    private VdpaBus bus;

    @BeforeEach
    void machine() throws IOException {
        write("proc/sys/kernel/osrelease", "6.12.0-test\n");
        bus = new VdpaBus(root);
    }

    private void write(String path, String text) throws IOException {
        Path file = root.resolve(path);
        Files.createDirectories(file.getParent());
        Files.writeString(file, text);
    }

    private void device(String name, String driver, int minor) throws IOException {
        Path device = Files.createDirectories(root.resolve("sys/bus/vdpa/devices/" + name));
        if (driver != null) {
            Path folder = Files.createDirectories(root.resolve("sys/bus/vdpa/drivers/" + driver));
            Files.createSymbolicLink(device.resolve("driver"), folder);
        }
        if (minor >= 0) {
            Files.createDirectories(device.resolve("vhost-vdpa-" + minor));
            write("dev/vhost-vdpa-" + minor, "");
        }
    }

    /** A device on the bus below its parent, as the kernel lays them out. */
    private void below(String parent, String name) throws IOException {
        Path device = Files.createDirectories(root.resolve("sys/devices/%s".formatted(parent)));
        Path bus = Files.createDirectories(root.resolve("sys/bus/vdpa/devices"));
        Files.createSymbolicLink(
                bus.resolve(name), Files.createDirectory(device.resolve(name)).toRealPath());
    }

    @Test
    void aDeviceThatIsNoVduseOneIsToldApart() throws IOException {
        Path vduse = Files.createDirectories(root.resolve("sys/class/vduse"));
        for (String name : List.of("disk0", "sim0", "power")) {
            Path device = root.resolve("sys/devices/virtual/vduse").resolve(name);
            Files.createDirectories(device.resolve("power"));
            Files.createSymbolicLink(vduse.resolve(name), device.toRealPath());
        }
        below("virtual/vduse/disk0", "disk0");
        below("vdpasim_blk", "sim0");
        below("vdpasim_net", "power");
        below("vdpasim_net", "card0");
        assertFalse(bus.isAnother("disk0"));
        assertTrue(bus.isAnother("sim0"));
        assertTrue(bus.isAnother("power"), "as a folder of every device is called");
        assertTrue(bus.isAnother("card0"));
        assertFalse(bus.isAnother("nobody"));
    }

    private String refusal(String address) {
        return assertThrows(VirtioException.class, () -> bus.file(address)).getMessage();
    }

    private List<Candidate> candidates() {
        return new VhostVdpaProvider(1 << 20, Memory.PAGE_BYTES, bus, address -> null).discover();
    }

    @Test
    void moduleThatTheKernelHasIsToBeLoaded() throws IOException {
        write("lib/modules/6.12.0-test/modules.dep", "kernel/drivers/vhost/vhost_vdpa.ko.xz: a.ko");
        write("lib/modules/6.12.0-test/modules.builtin", "");
        assertEquals(
                "the kernel module vhost_vdpa is not loaded: as root, modprobe vhost_vdpa",
                bus.missing(VdpaBus.VHOST_VDPA));
        Candidate candidate = candidates().getFirst();
        assertEquals("vhost-vdpa:", candidate.address());
        assertEquals(bus.missing(VdpaBus.VHOST_VDPA), candidate.unavailable());
    }

    @Test
    void moduleIsFoundWhereverItsFileLiesAndHoweverItIsSpelt() throws IOException {
        for (String file : new String[] {"vhost_vdpa.ko:", "extra/vhost-vdpa.ko.zst: x.ko"}) {
            write("lib/modules/6.12.0-test/modules.dep", file);
            write("lib/modules/6.12.0-test/modules.builtin", "");
            String missing = bus.missing(VdpaBus.VHOST_VDPA);
            assertTrue(missing.endsWith("modprobe vhost_vdpa"), missing);
        }
        write("lib/modules/6.12.0-test/modules.dep", "a_vhost_vdpa.ko: vhost_vdpa.ko");
        String missing = bus.missing(VdpaBus.VHOST_VDPA);
        assertTrue(missing.startsWith("kernel 6.12.0-test has no module vhost_vdpa"), missing);
    }

    @Test
    void moduleThatIsOnlyNeededByAnotherIsNotThere() throws IOException {
        write("lib/modules/6.12.0-test/modules.dep", "kernel/x.ko: kernel/vdpa_user/vduse.ko");
        write("lib/modules/6.12.0-test/modules.builtin", "");
        String missing = bus.missing(VdpaBus.VDUSE);
        assertTrue(missing.startsWith("kernel 6.12.0-test has no module vduse"), missing);
        assertTrue(missing.contains("CONFIG_VDPA_USER"), missing);
    }

    @Test
    void withoutModulesNobodyCanSay() {
        String missing = bus.missing(VdpaBus.VDUSE);
        assertTrue(missing.contains("on the host, modprobe vduse"), missing);
    }

    @Test
    void aDeviceIsFoundByNameAndByPath() throws IOException {
        device("disk0", "vhost_vdpa", 3);
        Path file = root.resolve("dev/vhost-vdpa-3");
        assertEquals(file, bus.file("disk0"));
        assertEquals(file, bus.file(file.toString()));
        Candidate candidate = candidates().getFirst();
        assertEquals("vhost-vdpa:" + file, candidate.address());
        assertEquals("vDPA device disk0", candidate.description());
        assertNull(candidate.unavailable());
    }

    @Test
    void aDeviceOfAnotherDriverIsToBeBoundAnew() throws IOException {
        device("disk0", "virtio_vdpa", -1);
        Files.createDirectories(root.resolve("sys/module/vhost_vdpa"));
        String how =
                "bound to virtio_vdpa; as root, echo disk0 >"
                        + " /sys/bus/vdpa/drivers/virtio_vdpa/unbind; echo disk0 >"
                        + " /sys/bus/vdpa/drivers/vhost_vdpa/bind";
        assertEquals("disk0: " + how, refusal("disk0"));
        assertEquals(how, candidates().getFirst().unavailable());
    }

    @Test
    void aDeviceOfNoDriverIsToBeBound() throws IOException {
        device("disk0", null, -1);
        Files.createDirectories(root.resolve("sys/module/vhost_vdpa"));
        assertEquals(
                "disk0: bound to no driver; as root, echo disk0 >"
                        + " /sys/bus/vdpa/drivers/vhost_vdpa/bind",
                refusal("disk0"));
    }

    @Test
    void whatIsNotThereIsSaidToBe() throws IOException {
        device("disk0", "vhost_vdpa", 3);
        assertEquals("disk1: no such device on the vDPA bus, which has disk0", refusal("disk1"));
        Files.createDirectories(root.resolve("sys/module/vhost_vdpa"));
        String absent = root.resolve("dev/vhost-vdpa-9").toString();
        assertTrue(refusal(absent).startsWith(absent + ": there is no such device"));
    }
}
