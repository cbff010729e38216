package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import virtio.guest.mirror.Mirror;
import virtio.transport.vduse.RogueServer;

import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;

/**
 * Devices of others through /dev/vhost-vdpa: qemu-storage-daemon's VDUSE disk, the kernel's own
 * disk and card, and servers that serve badly.
 */
class VdpaIT {
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest =
                Guest.q35("vdpa")
                        .program(RogueServer.class)
                        .bundle(Mirror.class, "org.osgi.framework,virtio.api,virtio.api.net")
                        .job(
                                """
                                hugepages 16
                                session c
                                check none tell c "attach vhost-vdpa:disk9"
                                check why tell c "why vduse:disk0; why vhost-vdpa:"
                                modprobe -a vduse vhost_vdpa virtio_vdpa vdpa_sim_blk vdpa_sim_net virtio_blk
                                echo 0 > /sys/bus/vdpa/drivers_autoprobe
                                bind() { echo "$1" > /sys/bus/vdpa/drivers/vhost_vdpa/bind; }
                                program virtio.transport.vduse.RogueServer > /tmp/rogues &
                                dd if=/dev/urandom of=/tmp/disk.img bs=1M count=1
                                dd if=/dev/urandom of=/tmp/new.img bs=1M count=1
                                qemu-storage-daemon --daemonize --pidfile /tmp/pid \
                                    --blockdev driver=file,filename=/tmp/disk.img,node-name=d0 \
                                    --export type=vduse-blk,id=e0,node-name=d0,writable=on,\
                                name=qsd0,num-queues=2,queue-size=256
                                vdpa dev add name qsd0 mgmtdev vduse
                                vdpa dev add name sim0 mgmtdev vdpasim_blk
                                vdpa dev add name card0 mgmtdev vdpasim_net mac 52:54:00:12:34:56
                                check unbound tell c "attach vhost-vdpa:qsd0"
                                check taken tell c "export ram:1MiB vduse:sim0"
                                bind qsd0
                                bind sim0
                                bind card0
                                check old sha256sum /tmp/disk.img
                                check new sha256sum /tmp/new.img
                                check daemon tell c "attach vhost-vdpa:qsd0; \
                                copy blk0 file:/tmp/copy.img; copy file:/tmp/new.img blk0; \
                                perf blk0 --runtime=1; perf blk0 --runtime=1 --mode=interrupt \
                                --queue=1; show blk0"
                                check written sha256sum /tmp/disk.img
                                check simulated tell c "attach vhost-vdpa:sim0 --name=sim; \
                                copy file:/tmp/new.img sim; detach sim"
                                echo sim0 > /sys/bus/vdpa/drivers/vhost_vdpa/unbind
                                echo sim0 > /sys/bus/vdpa/drivers/virtio_vdpa/bind
                                until_ok test -b /dev/vda
                                check kept sh -c "dd if=/dev/vda bs=1M count=1 | sha256sum"
                                tell c "attach vhost-vdpa:card0 --name=card"
                                check mirror tell c "mirror card"
                                check card tell c "show card"

                                until_ok grep -q . /tmp/rogues
                                echo 2 > /sys/class/vduse/mute/msg_timeout
                                for rogue in refusing lying mute; do
                                    bind $rogue
                                    check $rogue tell c "attach vhost-vdpa:$rogue --name=$rogue"
                                done
                                check after tell c "perf blk0 --runtime=1; detach blk0; detach card"

                                # As hardware does, the simulator takes pages instead of a process.
                                vdpa dev del sim0
                                vdpa dev del card0
                                rmmod vdpa_sim_blk vdpa_sim_net vdpa_sim
                                modprobe vdpa_sim use_va=0
                                modprobe vdpa_sim_blk
                                vdpa dev add name pinned mgmtdev vdpasim_blk
                                bind pinned
                                check unlocked tell c "attach vhost-vdpa:pinned"
                                ulimit -l unlimited
                                conf=/opt/virtio/conf/virtio.transport.vhostvdpa.cfg
                                echo memoryBytes=33554432 > $conf
                                echo hugePageBytes=2097152 >> $conf
                                check locked container "attach vhost-vdpa:pinned; \
                                copy file:/tmp/new.img blk0"
                                echo pinned > /sys/bus/vdpa/drivers/vhost_vdpa/unbind
                                echo pinned > /sys/bus/vdpa/drivers/virtio_vdpa/bind
                                until_ok test -b /dev/vda
                                check pinned sh -c "dd if=/dev/vda bs=1M count=1 | sha256sum"
                                """)
                        .limit(1200)
                        .run();
    }

    /** The checksums in a text, in their order. */
    static List<String> sums(String text) {
        return Pattern.compile("\\b[0-9a-f]{64}\\b")
                .matcher(text)
                .results()
                .map(MatchResult::group)
                .toList();
    }

    @Test
    void withoutTheModulesItIsSaidWhichOnesAreMissing() {
        String said = guest.refused("none");
        assertTrue(said.contains("vhost_vdpa is not loaded: as root, modprobe vhost_vdpa"), said);
        assertEquals(
                List.of(
                        "vduse: the kernel module vduse is not loaded: as root, modprobe vduse",
                        "vhost-vdpa: the kernel module vhost_vdpa is not loaded: as root, modprobe"
                                + " vhost_vdpa"),
                guest.passed("why").lines().toList());
    }

    @Test
    void anUnboundDeviceIsSaidToBe() {
        String said = guest.refused("unbound");
        assertTrue(said.contains("echo qsd0 > /sys/bus/vdpa/drivers/vhost_vdpa/bind"), said);
    }

    /** What it does afterwards shows that it is still on the bus. */
    @Test
    void aNameThatAnotherDeviceHasIsRefused() {
        String said = guest.refused("taken");
        assertTrue(said.contains("another vDPA device has that name on the bus"), said);
    }

    @Test
    void aDiskOfTheStorageDaemonIsReadAndWritten() {
        String said = guest.passed("daemon");
        String before = sums(guest.passed("old")).getFirst();
        String after = sums(guest.passed("new")).getFirst();
        assertEquals(List.of(before, after), sums(said), said);
        assertEquals(after, sums(guest.passed("written")).getFirst());
        assertEquals(2, said.split(" IOPS").length - 1, said);
    }

    @Test
    void theKernelsOwnDiskKeepsWhatIsWritten() {
        String sum = sums(guest.passed("new")).getFirst();
        assertEquals(List.of(sum), sums(guest.passed("simulated")));
        assertEquals(List.of(sum), sums(guest.passed("kept")));
    }

    @Test
    void memoryThatIsPinnedTakesALimitThatAllowsItAndHugePages() {
        String said = guest.refused("unlocked");
        assertTrue(said.contains("ulimit -l"), said);
        String sum = sums(guest.passed("new")).getFirst();
        assertEquals(sum, sums(guest.passed("locked")).getFirst());
        assertEquals(List.of(sum), sums(guest.passed("pinned")));
    }

    /** Its control queue is in a group of its own, and is answered when its address is set. */
    @Test
    void theKernelsOwnCardIsDrivenWithAllItsGroups() {
        assertEquals("40 frames came back as they were sent", guest.passed("mirror"));
        String said = guest.passed("card");
        assertTrue(said.contains("52:54:00:12:34:57"), said);
        assertTrue(said.matches("(?s).*controlq +split +16 +16 +1 +1 +works.*"), said);
    }

    @Test
    void aServerThatTakesNoFeaturesIsNamed() {
        String said = guest.refused("refusing");
        assertTrue(said.contains("vhost-vdpa:refusing"), said);
    }

    @Test
    void aServerThatUsesWhatNobodyOfferedBreaksTheQueueAndNothingElse() {
        String said = guest.refused("lying");
        assertTrue(said.contains("9999"), said);
        assertTrue(guest.passed("after").contains(" IOPS"));
    }

    @Test
    void aServerThatAnswersNothingIsSaidTo() {
        String said = guest.refused("mute");
        assertTrue(said.contains("its server does not answer"), said);
    }
}
