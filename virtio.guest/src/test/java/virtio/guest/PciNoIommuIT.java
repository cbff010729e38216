package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Files;
import java.nio.file.Path;

/** QEMU's virtio-blk-pci with no IOMMU: physical addresses of huge pages. */
class PciNoIommuIT {
    @TempDir static Path folder;
    private static Guest guest;
    private static Path fileSystem;
    private static Path written;

    @BeforeAll
    static void boot() throws Exception {
        fileSystem = Disks.fileSystem(folder.resolve("fs.img"));
        written = Disks.blank(folder.resolve("written.img"), 16 << 20);
        guest =
                Guest.q35("pci-noiommu")
                        .disk("fs", fileSystem)
                        .disk("written", written)
                        .qemu("-device", "virtio-blk-pci,drive=fs,addr=4,num-queues=2")
                        .qemu(
                                "-device",
                                "virtio-blk-pci,drive=written,addr=5,packed=on,disable-legacy=on")
                        .job(
                                """
                                modprobe vfio enable_unsafe_noiommu_mode=1
                                modprobe vfio-pci
                                rebind pci 0000:00:04.0 vfio-pci
                                rebind pci 0000:00:05.0 vfio-pci
                                check small container "attach pci:0000:00:04.0"
                                hugepages 80
                                check read container "attach pci:0000:00:04.0; \
                                copy blk0 file:/tmp/fs.img; \
                                perf blk0 --runtime=1 --mode=interrupt"
                                check write container "attach pci:0000:00:04.0; \
                                attach pci:0000:00:05.0; copy blk0 blk1; ring blk1 0"
                                """)
                        .limit(1200)
                        .run();
    }

    @Test
    void aTransitionalDeviceIsDrivenAsAModernOne() throws Exception {
        String said = guest.passed("read");
        assertTrue(said.contains("sha256 " + Disks.sha256(fileSystem)), said);
        assertTrue(said.contains(" IOPS"), said);
    }

    @Test
    void aFileSystemIsCopiedFromOneToTheOther() throws Exception {
        assertTrue(guest.passed("write").contains("packed"));
        assertEquals(-1, Files.mismatch(fileSystem, written));
        Disks.check(written);
    }

    @Test
    void lackingHugePagesAreNamed() {
        String said = guest.refused("small");
        assertTrue(
                said.contains("echo 40 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
                said);
    }
}
