package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Path;

/** What happens to PCI functions while they are in use: swapped, updated, unplugged. */
class PciLiveIT {
    private static final int BYTES = 8 << 20;
    private static final String OPTIONS = ",disable-legacy=on,iommu_platform=on";

    @TempDir static Path folder;
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest =
                Guest.q35("pci-live")
                        .kernel("intel_iommu=on")
                        .qemu("-device", "intel-iommu,intremap=on,caching-mode=on")
                        .qemu("-device", "pcie-root-port,id=slot,chassis=1,addr=8");
        disk("twin", "addr=4,share-rw=on,serial=twin");
        guest.qemu(
                "-device",
                "virtio-blk-pci,drive=twin,id=twin2,addr=5,share-rw=on,serial=twin,packed=on,"
                        + "num-queues=2"
                        + OPTIONS);
        disk("transport", "addr=6");
        disk("driver", "addr=7");
        disk("hot", "bus=slot");
        guest.job(
                        """
                        modprobe vfio_iommu_type1
                        modprobe vfio-pci
                        for slot in 00:04 00:05 00:06 00:07 01:00; do
                            rebind pci 0000:$slot.0 vfio-pci
                        done
                        check swap container "attach pci:0000:00:04.0; \
                        load blk0 --runtime=12 --swap=pci:0000:00:05.0"
                        check transport container "attach pci:0000:00:06.0; \
                        load blk0 --runtime=8 --update=virtio.transport.pci"
                        check driver container "attach pci:0000:00:07.0; \
                        load blk0 --runtime=8 --update=virtio.device.blk"
                        slot=/sys/bus/pci/devices/0000:01:00.0
                        while [ -e $slot ]; do sleep 0.2; done && echo hot is away && \
                        while [ ! -e $slot/driver ]; do sleep 0.2; done && \
                        rebind pci 0000:01:00.0 vfio-pci && echo hot is bound &
                        check back container "attach pci:0000:01:00.0 --name hot; \
                        load hot --runtime=25"
                        wait
                        check lost container "attach pci:0000:01:00.0 --name lost; \
                        perf lost --runtime=100"
                        check gone container "why"
                        """)
                .limit(500)
                .boot();
        try {
            guest.await("hot is under load");
            guest.qmp("device_del", "{\"id\": \"hot\"}");
            guest.await("hot is away");
            guest.qmp(
                    "device_add",
                    "{\"driver\": \"virtio-blk-pci\", \"drive\": \"hot\", \"id\": \"hot2\","
                            + " \"bus\": \"slot\", \"disable-legacy\": \"on\","
                            + " \"iommu_platform\": true}");
            guest.await("lost attached");
            guest.qmp("device_del", "{\"id\": \"hot2\"}");
            guest.end();
        } finally {
            guest.close();
        }
    }

    private static void disk(String name, String options) throws Exception {
        Path image = Disks.blank(folder.resolve(name + ".img"), BYTES);
        guest.qemu(
                "-blockdev",
                "driver=raw,node-name=%s,file.driver=file,file.filename=%s".formatted(name, image));
        guest.qemu(
                "-device",
                "virtio-blk-pci,drive=%s,id=%s,%s%s".formatted(name, name, options, OPTIONS));
    }

    private static int count(String said, String what) {
        String before = said.substring(0, said.indexOf(" " + what));
        return Integer.parseInt(before.substring(before.lastIndexOf(' ') + 1));
    }

    @Test
    void aDiskMovesBetweenTwoFunctionsUnderLoad() {
        String said = guest.passed("swap");
        assertTrue(said.contains("none lost"), said);
        assertTrue(count(said, "swaps") >= 2, said);
    }

    @Test
    void theTransportBundleIsUpdatedUnderLoad() {
        String said = guest.passed("transport");
        assertTrue(said.contains("none lost"), said);
        assertTrue(count(said, "updates") >= 1, said);
    }

    @Test
    void theDriverBundleIsUpdatedUnderLoad() {
        String said = guest.passed("driver");
        assertTrue(said.contains("none lost"), said);
        assertTrue(count(said, "updates") >= 1, said);
    }

    @Test
    void anUnpluggedDiskThatComesBackLosesNothing() {
        assertTrue(guest.passed("back").contains("none lost"));
    }

    @Test
    void requestsOfADiskThatStaysAwayEndWithAnError() {
        String said = guest.refused("lost");
        assertFalse(said.contains(" IOPS"), said);
        assertTrue(said.contains("lost"), said);
        assertFalse(guest.passed("gone").contains("0000:01:00.0"));
        assertEquals(0, guest.exit());
    }
}
