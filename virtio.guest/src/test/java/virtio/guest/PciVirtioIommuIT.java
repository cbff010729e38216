package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Files;
import java.nio.file.Path;

/** QEMU's virtio-blk-pci behind virtio-iommu, which does not remap interrupts. */
class PciVirtioIommuIT {
    private static final String OPTIONS = ",disable-legacy=on";

    @TempDir static Path folder;
    private static Guest guest;
    private static Path fileSystem;
    private static Path written;

    @BeforeAll
    static void boot() throws Exception {
        fileSystem = Disks.fileSystem(folder.resolve("fs.img"));
        written = Disks.blank(folder.resolve("written.img"), 16 << 20);
        guest =
                Guest.q35("pci-virtio-iommu")
                        .disk("fs", fileSystem)
                        .disk("written", written)
                        .disk("deaf", Disks.blank(folder.resolve("deaf.img"), 1 << 20))
                        .qemu("-device", "virtio-iommu-pci,addr=3")
                        .qemu(
                                "-device",
                                "virtio-blk-pci,drive=fs,addr=4,iommu_platform=on" + OPTIONS)
                        .qemu(
                                "-device",
                                "virtio-blk-pci,drive=written,addr=5,iommu_platform=on" + OPTIONS)
                        .qemu("-device", "virtio-blk-pci,drive=deaf,addr=6" + OPTIONS)
                        .job(
                                """
                                modprobe virtio-iommu
                                modprobe vfio_iommu_type1
                                modprobe vfio-pci
                                for n in 4 5 6; do rebind pci 0000:00:0$n.0 vfio-pci; done
                                check unsafe container "attach pci:0000:00:04.0"
                                echo 1 > /sys/module/vfio_iommu_type1/parameters/\
                                allow_unsafe_interrupts
                                check copy container "attach pci:0000:00:04.0; \
                                attach pci:0000:00:05.0; copy blk0 blk1; \
                                perf blk1 --runtime=1 --mode=interrupt"
                                check deaf container "attach pci:0000:00:06.0"
                                """)
                        .limit(1200)
                        .run();
    }

    @Test
    void aFileSystemIsCopiedFromOneToTheOther() throws Exception {
        String said = guest.passed("copy");
        assertTrue(said.contains("sha256 " + Disks.sha256(fileSystem)), said);
        assertEquals(-1, Files.mismatch(fileSystem, written));
        Disks.check(written);
    }

    @Test
    void interruptsThatAreNotRemappedAreNamed() {
        String said = guest.refused("unsafe");
        assertTrue(said.contains("allow_unsafe_interrupts=1"), said);
    }

    @Test
    void aDeviceThatGoesPastTheIommuIsRefused() {
        String said = guest.refused("deaf");
        assertTrue(said.contains("ACCESS_PLATFORM"), said);
    }
}
