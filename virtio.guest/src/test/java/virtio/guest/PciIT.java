package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.transport.pci.CutOff;

import java.nio.file.Files;
import java.nio.file.Path;

/** QEMU's virtio-blk-pci behind an Intel IOMMU, driven through VFIO. */
class PciIT {
    private static final String OPTIONS = ",disable-legacy=on,iommu_platform=on";

    @TempDir static Path folder;
    private static Guest guest;
    private static Path fileSystem;
    private static Path blank;
    private static String sum;

    @BeforeAll
    static void boot() throws Exception {
        fileSystem = Disks.fileSystem(folder.resolve("fs.img"));
        sum = Disks.sha256(fileSystem);
        blank = Disks.blank(folder.resolve("blank.img"), 16 << 20);
        guest =
                Guest.q35("pci")
                        .kernel("intel_iommu=on")
                        .disk("fs", fileSystem)
                        .disk("packed", Disks.blank(folder.resolve("packed.img"), 16 << 20))
                        .disk("bare", blank)
                        .disk("pin", Disks.blank(folder.resolve("pin.img"), 8 << 20))
                        .qemu("-device", "intel-iommu,intremap=on,caching-mode=on")
                        .qemu("-device", "virtio-blk-pci,drive=fs,addr=4,num-queues=4" + OPTIONS)
                        .qemu("-device", "virtio-blk-pci,drive=packed,addr=5,packed=on" + OPTIONS)
                        .qemu(
                                "-device",
                                "virtio-blk-pci,drive=bare,addr=6,event_idx=off,indirect_desc=off"
                                        + OPTIONS)
                        .qemu("-device", "virtio-blk-pci,drive=pin,addr=7,vectors=0" + OPTIONS)
                        .qemu("-device", "virtio-gpu-pci,addr=8,hostmem=1M" + OPTIONS)
                        .job(
                                """
                                check refused container "why pci:0000:00:04.0; \
                                attach pci:0000:00:04.0"
                                modprobe vfio_iommu_type1
                                modprobe vfio-pci
                                for n in 4 5 6 7 8; do
                                    check bind$n rebind pci 0000:00:0$n.0 vfio-pci
                                done
                                check read container "attach pci:0000:00:04.0; show blk0; \
                                copy blk0 file:/tmp/fs.img; \
                                perf blk0 --runtime=1 --mode=interrupt --queue=3; \
                                perf blk0 --runtime=1 --mode=poll --queue=1"
                                check write container "attach pci:0000:00:06.0; \
                                copy file:/tmp/fs.img blk0; ring blk0 0"
                                check packed container "attach pci:00:05.0; features blk0; \
                                copy file:/tmp/fs.img blk0; perf blk0 --runtime=1; \
                                copy blk0 file:/tmp/again.img"
                                check pin container "attach pci:0000:00:07.0; \
                                copy blk0 file:/tmp/pin.img; ring blk0 0"
                                check shared container "attach pci:0000:00:08.0"
                                check twice container "attach pci:0000:00:04.0; \
                                attach pci:00:04.0 --name other"
                                exec 9<> "/dev/vfio/$(basename "$(readlink \
                                /sys/bus/pci/devices/0000:00:04.0/iommu_group)")"
                                check held container "attach pci:0000:00:04.0"
                                exec 9>&-
                                limit=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit
                                echo 0 > $limit
                                check entries container "attach pci:0000:00:04.0"
                                echo 65535 > $limit
                                echo user:x:1000:1000::/tmp:/bin/sh > /etc/passwd
                                chmod -R a+rwX /opt/virtio /tmp
                                check rights su user -c \
                                "virtio -c 'attach pci:0000:00:04.0'"
                                chmod a+rw /dev/vfio/*
                                ulimit -l 8192
                                check locked su user -c \
                                "virtio -c 'attach pci:0000:00:04.0'"
                                check cut /opt/jre/bin/java -cp /opt/probe:/opt/virtio/bundle/transport.pci.jar:\
                                /opt/virtio/bundle/virtio.linux.jar:\
                                /opt/virtio/bundle/virtio.api.jar \
                                --enable-native-access=ALL-UNNAMED virtio.transport.pci.CutOff \
                                0000:00:06.0
                                check faults sh -c "dmesg | grep -i dmar"
                                """)
                        .file("/opt/probe/virtio/transport/pci/CutOff.class", probe())
                        .limit(1200)
                        .run();
    }

    private static Path probe() throws Exception {
        return Path.of(CutOff.class.getResource("CutOff.class").toURI());
    }

    @Test
    void aFileSystemIsReadOut() {
        String said = guest.passed("read");
        assertTrue(said.contains("sha256 " + sum), said);
        assertTrue(said.contains(" IOPS"), said);
    }

    @Test
    void whatIsBoundElsewhereIsRefusedWithTheCommandsThatHelp() {
        String said = guest.refused("refused");
        assertTrue(said.contains("pci:0000:00:04.0: bound to virtio-pci"), said);
        assertTrue(said.contains("virtio: pci:0000:00:04.0 is bound to virtio-pci"), said);
        assertTrue(said.contains("/sys/bus/pci/devices/0000:00:04.0/driver/unbind"), said);
    }

    @Test
    void aFileSystemIsWritten() throws Exception {
        guest.passed("write");
        assertEquals(-1, Files.mismatch(fileSystem, blank));
        Disks.check(blank);
    }

    @Test
    void aPackedRingIsDriven() throws Exception {
        String said = guest.passed("packed");
        assertTrue(said.contains("RING_PACKED"), said);
        assertTrue(said.contains("sha256 " + sum), said);
        Disks.check(folder.resolve("packed.img"));
    }

    @Test
    void withoutVectorsThePinIsUsed() {
        String said = guest.passed("pin");
        assertTrue(said.matches("(?s).*interrupts received +[1-9].*"), said);
    }

    @Test
    void sharedMemoryIsRefusedByName() {
        String said = guest.refused("shared");
        assertTrue(said.contains("has shared memory region 1 of 1048576 bytes"), said);
        assertTrue(said.contains("no driver for type 16 devices"), said);
    }

    @Test
    void whatIsDrivenIsNotAttachedAgain() {
        assertTrue(guest.refused("twice").contains("driven in this container"));
    }

    @Test
    void afterUnmapTheDeviceReachesTheMemoryNoMore() {
        String said = guest.passed("cut");
        assertTrue(said.contains("mapped: used with status 0, memory written"), said);
        assertTrue(said.matches("(?s).*unmapped: .*, memory untouched.*"), said);
    }

    @Test
    void lackingRightsAreNamed() {
        String said = guest.refused("rights");
        assertTrue(said.contains("permission denied (EACCES): give this user the right"), said);
    }

    @Test
    void memoryThatCannotBeLockedIsNamedWithItsLimit() {
        String said = guest.refused("locked");
        assertTrue(said.contains("80 MiB are to be locked, the limit is 8388608 bytes"), said);
    }

    @Test
    void aGroupThatAnotherProcessHasIsNamed() {
        String said = guest.refused("held");
        assertTrue(said.contains("(EBUSY): end the other process that has it"), said);
    }

    @Test
    void mappingsThatAreNotAllowedAreNamedWithTheirLimit() {
        String said = guest.refused("entries");
        assertTrue(said.contains("(ENOSPC): all 0 mappings that vfio_iommu_type1 allows"), said);
        assertTrue(said.contains("/parameters/dma_entry_limit"), said);
    }
}
