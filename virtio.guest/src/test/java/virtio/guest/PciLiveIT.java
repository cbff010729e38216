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
    private static final int BYTES = 2 << 20;
    private static final String OPTIONS = ",disable-legacy=on,iommu_platform=on";

    @TempDir static Path folder;
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest =
                Guest.q35("pci-live")
                        .kernel("intel_iommu=on")
                        .qemu("-device", "intel-iommu,intremap=on,caching-mode=on")
                        .qemu("-device", "pcie-root-port,id=rp8,chassis=1,addr=8");
        disk("twin", "addr=4,share-rw=on,serial=twin");
        guest.qemu(
                "-device",
                "virtio-blk-pci,drive=twin,id=twin2,addr=5,share-rw=on,serial=twin,packed=on,"
                        + "num-queues=2"
                        + OPTIONS);
        disk("transport", "addr=6");
        disk("driver", "addr=7");
        // One image, three ways: two functions, and the kernel's disk on the second of them, which
        // a daemon in the guest serves over vhost-user with the serial number that it always has.
        disk("path", "addr=9,share-rw=on,serial=vhost_user_blk");
        guest.qemu(
                "-device",
                "virtio-blk-pci,drive=path,id=path2,addr=0xa,share-rw=on,serial=vhost_user_blk"
                        + OPTIONS);
        disk("hot", "bus=rp8");
        disk("grow", "addr=0xb");
        guest.job(
                        """
                        modprobe vfio_iommu_type1
                        modprobe vfio-pci
                        for slot in 00:04 00:05 00:06 00:07 00:09 00:0b 01:00; do
                            rebind pci 0000:$slot.0 vfio-pci
                        done
                        modprobe virtio_blk
                        qemu-storage-daemon --blockdev \
                        driver=host_device,filename=/dev/vda,node-name=path,cache.direct=on \
                        --export type=vhost-user-blk,id=path,node-name=path,writable=on,\
                        addr.type=unix,addr.path=/tmp/path.sock &
                        while [ ! -e /tmp/path.sock ]; do sleep 0.2; done
                        check live container "attach pci:0000:00:04.0; \
                        load blk0 --runtime=60 --count=4 --swap=pci:0000:00:05.0; detach blk0; \
                        attach pci:0000:00:06.0; \
                        load blk0 --runtime=60 --count=2 --update=virtio.transport.pci; detach blk0; \
                        attach pci:0000:00:07.0; \
                        load blk0 --runtime=60 --count=2 --update=virtio.device.blk; detach blk0; \
                        attach pci:0000:00:09.0; \
                        load blk0 --runtime=60 --count=4 --swap=vhost-user:/tmp/path.sock"
                        check grow container "attach pci:0000:00:0b.0 --name grow; \
                        perf grow --runtime=3; show grow"
                        slot=/sys/bus/pci/devices/0000:01:00.0
                        while [ -e $slot ]; do sleep 0.2; done && echo hot is away && \
                        while [ ! -e $slot/driver ]; do sleep 0.2; done && \
                        rebind pci 0000:01:00.0 vfio-pci && echo hot is bound &
                        echo swapTimeoutMillis=40000 > /opt/virtio/conf/virtio.bus.cfg
                        check hot container "attach pci:0000:01:00.0 --name hot; \
                        load hot --runtime=20; detach hot; \
                        attach pci:0000:01:00.0 --name lost; perf lost --runtime=200"
                        [ ! -e $slot ]
                        """)
                .limit(1200)
                .boot();
        try {
            guest.await("grow attached");
            guest.qmp(
                    "block_resize", "{\"node-name\": \"grow\", \"size\": %d}".formatted(2 * BYTES));
            guest.await("hot is under load");
            guest.unplug("hot");
            guest.await("hot is away");
            guest.qmp(
                    "device_add",
                    "{\"driver\": \"virtio-blk-pci\", \"drive\": \"hot\", \"id\": \"hot2\","
                            + " \"bus\": \"rp8\", \"disable-legacy\": \"on\","
                            + " \"iommu_platform\": true}");
            guest.await("lost attached");
            guest.unplug("hot2");
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

    @Test
    void aDiskMovesBetweenTwoFunctionsUnderLoad() {
        assertEquals(4, guest.exchanges("live", 0, "swaps"));
    }

    @Test
    void theTransportBundleIsUpdatedUnderLoad() {
        assertEquals(2, guest.exchanges("live", 1, "updates"));
    }

    @Test
    void theDriverBundleIsUpdatedUnderLoad() {
        assertEquals(2, guest.exchanges("live", 2, "updates"));
    }

    @Test
    void aDiskMovesBetweenPciAndVhostUserUnderLoad() {
        assertEquals(4, guest.exchanges("live", 3, "swaps"));
    }

    @Test
    void aDiskThatGrowsSaysSo() {
        String said = guest.passed("grow");
        assertTrue(said.matches("(?s).*capacity +%d bytes.*".formatted(2 * BYTES)), said);
    }

    @Test
    void anUnpluggedDiskThatComesBackLosesNothing() {
        assertTrue(guest.step("hot").output().contains("none lost"));
    }

    @Test
    void requestsOfADiskThatStaysAwayEndWithAnError() {
        String said = guest.refused("hot");
        assertTrue(said.contains("lost attached"), said);
        assertFalse(said.contains(" IOPS"), said);
        assertEquals(0, guest.exit(), "the slot is empty");
    }
}
