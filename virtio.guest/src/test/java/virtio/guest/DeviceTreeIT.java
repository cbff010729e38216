package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * QEMU's virtio-mmio windows on a 64-bit ARM machine, whose device tree is the only thing that says
 * where they are. Their interrupts are edge-triggered there.
 */
class DeviceTreeIT {
    private static final int MEBIBYTES = 4;

    /** Most of them without a device, which the tree does not say. */
    private static final int WINDOWS = 32;

    @TempDir static Path folder;
    private static Path source;
    private static Path target;
    private static Path written;
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        source = Disks.fileSystem(folder.resolve("source.img"), MEBIBYTES);
        target = Disks.blank(folder.resolve("target.img"), MEBIBYTES << 20);
        written = Disks.fileSystem(folder.resolve("written"), MEBIBYTES);
        guest =
                Guest.virt("device-tree")
                        .disk("source", source)
                        .disk("target", target)
                        .qemu("-device", "virtio-blk-device,drive=source")
                        .qemu("-device", "virtio-blk-device,drive=target,packed=on")
                        .file("/new.img", written)
                        .job(
                                """
                                check tree ls -1 /proc/device-tree
                                modprobe uio_pdrv_genirq
                                check bind rebind platform a003c00.virtio_mmio uio_pdrv_genirq
                                # For two: why says of each other window that is found what it lacks.
                                hugepages 16
                                check drive container "why mmio:0xa003e00; why mmio:0xa003c00; \
                                attach mmio:0xa003e00 --name=polled; \
                                attach mmio:0xa003c00 --name=interrupted; why; \
                                copy polled file:/tmp/read; copy file:/new.img interrupted; \
                                ring interrupted 0; \
                                export file:/tmp/read vhost-user:/tmp/vhost.sock; \
                                attach vhost-user:/tmp/vhost.sock --name=served; \
                                copy file:/new.img served; copy served file:/tmp/served"
                                check served cmp /new.img /tmp/served
                                check file cmp /new.img /tmp/read
                                check interrupts cat /sys/class/uio/uio0/event
                                """)
                        .run();
    }

    @Test
    void theWindowsOfTheTreeAreFound() {
        List<String> nodes =
                guest.passed("tree")
                        .lines()
                        .filter(node -> node.startsWith("virtio_mmio@"))
                        .toList();
        assertEquals(WINDOWS, nodes.size(), nodes::toString);
        String said = guest.passed("drive");
        for (String node : nodes) {
            String address = "mmio:0x" + node.split("@")[1];
            assertTrue(said.contains(address + ": "), () -> address + ": " + said);
        }
        assertTrue(said.contains(": virtio-mmio window a003e00.virtio_mmio, polled"), said);
        assertTrue(said.contains("a003c00.virtio_mmio, interrupts by /dev/uio0"), said);
    }

    @Test
    @Tag("DRV-MMIO-001")
    @Tag("DRV-MMIO-017")
    @Tag("DRV-MMIO-020")
    void anImageIsReadOut() throws Exception {
        String said = guest.passed("drive");
        assertTrue(said.contains("sha256 " + Disks.sha256(source)), said);
    }

    @Test
    @Tag("DRV-MMIO-009")
    @Tag("DRV-MMIO-010")
    void anImageThatWasWrittenIsCleanAndTheSame() throws Exception {
        assertTrue(guest.passed("drive").contains("packed"));
        assertEquals(-1, Files.mismatch(written, target));
        Disks.check(target);
    }

    /** Sockets, descriptors that are passed along, memfd and eventfd: all that is Linux's. */
    @Test
    void bothEndsOfVhostUserWorkOnThisProcessor() {
        guest.passed("drive");
        guest.passed("served");
        guest.passed("file");
    }

    @Test
    @Tag("DRV-MMIO-021")
    @Tag("DRV-MMIO-023")
    void interruptsCameThroughUio() {
        String said = guest.passed("interrupts");
        // The first comes unasked; more come to who takes them.
        assertTrue(Long.parseLong(said) > 1, said);
    }
}
