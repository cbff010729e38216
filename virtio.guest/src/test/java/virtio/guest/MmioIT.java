package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * QEMU's virtio-mmio windows: split and packed, with and without event index and indirect, and what
 * happens to them while they are in use. The machine has PCI as well, without an IOMMU.
 */
class MmioIT {
    private static final int DISKS = 4;
    private static final String[] SUMS = new String[DISKS];
    private static final Path[] IMAGES = new Path[DISKS];

    /** In the order of their addresses, from 0xfeb02e00 down. */
    private static final String[] DEVICES = {
        "num-queues=2",
        "num-queues=2,packed=on",
        "event_idx=off,indirect_desc=off",
        "packed=on,event_idx=off,indirect_desc=off",
    };

    private static final int MEBIBYTES = 4;
    private static final int LIVE_BYTES = 2 << 20;

    @TempDir static Path folder;
    private static Path written;
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest = Guest.microvm("mmio").limit(1200);
        for (int i = 0; i < DISKS; i++) {
            IMAGES[i] = Disks.fileSystem(folder.resolve("disk" + i), MEBIBYTES);
            SUMS[i] = Disks.sha256(IMAGES[i]);
            guest.disk("d" + i, IMAGES[i]);
            guest.qemu("-device", "virtio-blk-device,drive=d" + i + "," + DEVICES[i]);
        }
        twin("virtio-blk-device", "mmio");
        guest.qemu("-device", "virtio-blk-device,drive=" + live("transport"));
        guest.qemu("-device", "virtio-blk-device,drive=" + live("driver"));
        guest.qemu("-device", "virtio-blk-device,drive=" + grows("interrupted"));
        guest.qemu("-device", "virtio-blk-device,drive=" + grows("polled"));
        twin("virtio-blk-pci", "pci");
        written = Disks.fileSystem(folder.resolve("written"), MEBIBYTES);
        guest.file("/new.img", written);
        guest.job(
                """
                hugepages 88
                modprobe vfio enable_unsafe_noiommu_mode=1
                modprobe vfio-pci
                check pci rebind pci 0000:00:01.0 vfio-pci
                modprobe uio_pdrv_genirq
                check bind rebind platform LNRO0005:01 uio_pdrv_genirq
                check bind3 rebind platform LNRO0005:03 uio_pdrv_genirq
                check bind7 rebind platform LNRO0005:07 uio_pdrv_genirq
                check drive container "why mmio:0xfeb02e00; why mmio:0xfeb02c00; \
                attach mmio:0xfeb02e00 --name=d0; attach mmio:0xfeb02c00 --name=d1; \
                attach mmio:0xfeb02a00 --name=d2; attach mmio:0xfeb02800 --name=d3; \
                attach mmio:0xfeb02000 --name=interrupted; show interrupted; \
                attach mmio:0xfeb01e00 --name=polled; show polled; ls; \
                features d0; features d1; features d2; features d3; \
                copy d0 file:/tmp/0; copy d1 file:/tmp/1; copy d2 file:/tmp/2; copy d3 file:/tmp/3; \
                copy file:/new.img d0; copy file:/new.img d1; \
                copy file:/new.img d2; copy file:/new.img d3; show interrupted; show polled; \
                copy file:/new.img interrupted; copy file:/new.img polled; \
                copy interrupted file:/tmp/4; copy polled file:/tmp/5"
                check interrupts cat /sys/class/uio/uio0/event /sys/class/uio/uio1/event \
                /sys/class/uio/uio2/event
                # A new driver is there when its jar is: put into deploy/ under the load.
                deploy() {
                    until grep -q "^d6 is under load" /tmp/live; do sleep 0.2; done
                    cp /opt/virtio/deploy/device.blk.jar /opt/virtio/deploy/.new
                    mv /opt/virtio/deploy/.new /opt/virtio/deploy/device.blk.jar
                }
                live() {
                    : > /tmp/live
                    deploy &
                    container "attach mmio:0xfeb02600 --name=d4; \
                    load d4 --runtime=60 --count=4 --swap=pci:0000:00:01.0; \
                    attach mmio:0xfeb02400 --name=d5; \
                    load d5 --runtime=60 --count=2 --update=virtio.transport.mmio; \
                    attach mmio:0xfeb02200 --name=d6; load d6 --runtime=20; ls" > /tmp/live
                    local status=$?
                    cat /tmp/live
                    return $status
                }
                check live live
                modprobe virtio_mmio
                check refused container "why mmio:0xfeb02e00; attach mmio:0x100000"
                """);
        guest.boot();
        try {
            guest.await("NAME  "); // the list after both have been shown
            resize("interrupted");
            resize("polled");
            guest.end();
        } finally {
            guest.close();
        }
    }

    /** A blank disk that is half as large as the image that it gets. */
    private static String grows(String name) throws Exception {
        Path image = Disks.blank(folder.resolve(name + ".img"), LIVE_BYTES);
        guest.qemu(
                "-blockdev",
                "driver=raw,node-name=%s,file.driver=file,file.filename=%s".formatted(name, image));
        return name;
    }

    /** A blank disk for a load. */
    private static String live(String name) throws Exception {
        guest.disk(name, Disks.blank(folder.resolve(name + ".img"), LIVE_BYTES));
        return name;
    }

    private static void resize(String disk) throws Exception {
        String size = "{\"node-name\": \"%s\", \"size\": %d}".formatted(disk, MEBIBYTES << 20);
        guest.qmp("block_resize", size);
    }

    /** One way to the disk that has two. */
    private static void twin(String device, String path) throws Exception {
        if (!Files.exists(folder.resolve("twin.img"))) {
            Path image = Disks.blank(folder.resolve("twin.img"), LIVE_BYTES);
            guest.qemu(
                    "-blockdev",
                    "driver=raw,node-name=twin,file.driver=file,file.filename=" + image);
        }
        guest.qemu(
                "-device", "%s,drive=twin,id=%s,share-rw=on,serial=twin".formatted(device, path));
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 2, 3})
    @Tag("DRV-MMIO-001")
    @Tag("DRV-MMIO-017")
    @Tag("DRV-MMIO-020")
    void anImageIsReadOut(int disk) {
        String said = guest.passed("drive");
        assertTrue(said.contains("sha256 " + SUMS[disk]), said);
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 2, 3})
    @Tag("DRV-MMIO-009")
    @Tag("DRV-MMIO-010")
    void anImageThatWasWrittenIsCleanAndTheSame(int disk) throws Exception {
        guest.passed("drive");
        assertEquals(-1, Files.mismatch(written, IMAGES[disk]));
        Disks.check(IMAGES[disk]);
    }

    @Test
    void windowsAreFoundWithTheirInterrupts() {
        String said = guest.passed("drive");
        assertTrue(said.contains("mmio:0xfeb02e00: virtio-mmio window LNRO0005:00, polled"), said);
        assertTrue(said.contains("LNRO0005:01, interrupts by /dev/uio"), said);
    }

    @Test
    @Tag("DRV-MMIO-021")
    @Tag("DRV-MMIO-023")
    void interruptsCameThroughUio() {
        String said = guest.passed("interrupts");
        // The first comes unasked; more come to who takes them.
        assertEquals(3, said.lines().filter(count -> Long.parseLong(count) > 1).count(), said);
    }

    @ParameterizedTest
    @ValueSource(strings = {"interrupted", "polled"})
    @Tag("DRV-MMIO-021")
    void aDiskThatGrowsSaysSo(String disk) throws Exception {
        Matcher shown =
                Pattern.compile("name +%s\\s(?s:.*?)capacity +(\\d+) bytes".formatted(disk))
                        .matcher(guest.passed("drive"));
        List<Long> capacities = shown.results().map(s -> Long.valueOf(s.group(1))).toList();
        assertEquals(List.of((long) LIVE_BYTES, (long) MEBIBYTES << 20), capacities);
    }

    @ParameterizedTest
    @ValueSource(strings = {"interrupted", "polled"})
    void whatADiskHasGrownByIsWrittenAndRead(String disk) throws Exception {
        String said = guest.passed("drive");
        assertEquals(-1, Files.mismatch(written, folder.resolve(disk + ".img")));
        String sums = said.substring(said.lastIndexOf("serial"));
        assertEquals(4, sums.split("sha256 " + Disks.sha256(written), -1).length - 1, sums);
    }

    @Test
    void aDiskMovesBetweenItsWindowAndItsFunctionUnderLoad() {
        assertEquals(4, exchanges(0, "swaps"));
    }

    @Test
    void theTransportBundleIsUpdatedUnderLoad() {
        assertEquals(2, exchanges(1, "updates"));
    }

    @Test
    void aDriverBundleIsDeployedUnderLoad() {
        assertTrue(exchanges(2, "requests issued again") > 0);
    }

    /** How many of that kind the load saw, which has lost nothing. */
    private static int exchanges(int load, String what) {
        return guest.exchanges("live", load, what);
    }

    @Test
    void ordinaryMemoryIsRefused() {
        String said = guest.refused("refused");
        assertTrue(said.contains("ordinary memory"), said);
    }

    @Test
    void aWindowOfTheKernelsIsRefused() {
        String said = guest.refused("refused");
        assertTrue(said.contains("bound to virtio-mmio: give it to user space with: echo"), said);
    }
}
