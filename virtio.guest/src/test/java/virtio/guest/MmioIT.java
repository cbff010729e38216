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

/** QEMU's virtio-mmio windows: split and packed, with and without event index and indirect. */
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

    @TempDir static Path folder;
    private static Path written;
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest = Guest.microvm("mmio").limit(400);
        for (int i = 0; i < DISKS; i++) {
            IMAGES[i] = Disks.fileSystem(folder.resolve("disk" + i));
            SUMS[i] = Disks.sha256(IMAGES[i]);
            guest.disk("d" + i, IMAGES[i]);
            guest.qemu("-device", "virtio-blk-device,drive=d" + i + "," + DEVICES[i]);
        }
        written = Disks.fileSystem(folder.resolve("written"));
        guest.file("/new.img", written);
        guest.job(
                """
                hugepages 40
                modprobe uio_pdrv_genirq
                check bind rebind platform LNRO0005:01 uio_pdrv_genirq
                check bind3 rebind platform LNRO0005:03 uio_pdrv_genirq
                check drive container "why mmio:0xfeb02e00; why mmio:0xfeb02c00; \
                attach mmio:0xfeb02e00 --name=d0; attach mmio:0xfeb02c00 --name=d1; \
                attach mmio:0xfeb02a00 --name=d2; attach mmio:0xfeb02800 --name=d3; ls; \
                features d0; features d1; features d2; features d3; \
                copy d0 file:/tmp/0; copy d1 file:/tmp/1; copy d2 file:/tmp/2; copy d3 file:/tmp/3; \
                copy file:/new.img d0; copy file:/new.img d1; \
                copy file:/new.img d2; copy file:/new.img d3"
                check interrupts cat /sys/class/uio/uio0/event /sys/class/uio/uio1/event
                check memory container "attach mmio:0x100000"
                modprobe virtio_mmio
                check busy container "attach mmio:0xfeb02e00"
                """);
        guest.run();
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
        assertEquals(2, said.lines().filter(count -> Long.parseLong(count) > 0).count(), said);
    }

    @Test
    void ordinaryMemoryIsRefused() {
        String said = guest.refused("memory");
        assertTrue(said.contains("ordinary memory"), said);
    }

    @Test
    void aWindowOfTheKernelsIsRefused() {
        String said = guest.refused("busy");
        assertTrue(said.contains("bound to virtio-mmio: give it to user space with: echo"), said);
    }
}
