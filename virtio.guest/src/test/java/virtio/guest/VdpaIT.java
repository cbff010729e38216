package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Devices of others through /dev/vhost-vdpa: qemu-storage-daemon's VDUSE disk, the kernel's own.
 */
class VdpaIT {
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest =
                Guest.q35("vdpa")
                        .job(
                                """
                                check none container "attach vhost-vdpa:disk9"
                                modprobe -a vduse vhost_vdpa virtio_vdpa vdpa_sim_blk
                                echo 0 > /sys/bus/vdpa/drivers_autoprobe
                                dd if=/dev/urandom of=/tmp/disk.img bs=1M count=8
                                dd if=/dev/urandom of=/tmp/new.img bs=1M count=8
                                qemu-storage-daemon --daemonize --pidfile /tmp/pid \
                                    --blockdev driver=file,filename=/tmp/disk.img,node-name=d0 \
                                    --export type=vduse-blk,id=e0,node-name=d0,writable=on,\
                                name=qsd0,num-queues=2,queue-size=256
                                vdpa dev add name qsd0 mgmtdev vduse
                                vdpa dev add name sim0 mgmtdev vdpasim_blk
                                check unbound container "attach vhost-vdpa:qsd0"
                                echo qsd0 > /sys/bus/vdpa/drivers/vhost_vdpa/bind
                                echo sim0 > /sys/bus/vdpa/drivers/vhost_vdpa/bind
                                check old sha256sum /tmp/disk.img
                                check new sha256sum /tmp/new.img
                                check daemon container "attach vhost-vdpa:qsd0; \
                                copy blk0 file:/tmp/copy.img; copy file:/tmp/new.img blk0; \
                                perf blk0 --runtime=2; show blk0"
                                check written sha256sum /tmp/disk.img
                                check simulated container "attach vhost-vdpa:/dev/vhost-vdpa-1; \
                                copy file:/tmp/new.img blk0; perf blk0 --rw=randwrite --runtime=2; \
                                detach blk0"
                                """)
                        .run();
    }

    /** The checksums in a text, in their order. */
    static List<String> sums(String text) {
        return Pattern.compile("\\b[0-9a-f]{64}\\b")
                .matcher(text)
                .results()
                .map(result -> result.group())
                .toList();
    }

    @Test
    void withoutTheModuleItIsSaidWhichOneIsMissing() {
        String said = guest.refused("none");
        assertTrue(said.contains("as root, modprobe vhost_vdpa"), said);
    }

    @Test
    void anUnboundDeviceIsSaidToBe() {
        String said = guest.refused("unbound");
        assertTrue(said.contains("echo qsd0 > /sys/bus/vdpa/drivers/vhost_vdpa/bind"), said);
    }

    @Test
    void aDiskOfTheStorageDaemonIsReadAndWritten() {
        String said = guest.passed("daemon");
        String before = sums(guest.passed("old")).getFirst();
        String after = sums(guest.passed("new")).getFirst();
        assertEquals(List.of(before, after), sums(said), said);
        assertEquals(after, sums(guest.passed("written")).getFirst());
        assertTrue(said.contains(" IOPS"), said);
    }

    @Test
    void theKernelsOwnDiskIsWritten() {
        String said = guest.passed("simulated");
        Matcher done = Pattern.compile("([0-9.,]+k?) IOPS").matcher(said);
        assertTrue(done.find(), said);
    }
}
