package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.guest.mirror.Mirror;
import virtio.transport.vduse.RogueDriver;

import java.nio.file.Path;
import java.util.List;

/**
 * Disks and cards that a container offers by VDUSE: to the guest's kernel, to another container,
 * and to a driver that behaves badly.
 *
 * <p>Container {@code s} serves until it is killed while the kernel writes; container {@code d}
 * drives before, and serves in its place then.
 */
class VduseIT {
    @TempDir static Path folder;
    private static Path packed;
    private static Path split;
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        packed = Disks.blank(folder.resolve("packed.img"), 32 << 20);
        split = Disks.blank(folder.resolve("split.img"), 32 << 20);
        guest =
                Guest.q35("vduse")
                        .disk("packed", packed)
                        .disk("split", split)
                        .qemu("-device", "virtio-blk-pci,drive=packed")
                        .qemu("-device", "virtio-blk-pci,drive=split")
                        .program(RogueDriver.class)
                        .bundle(Mirror.class, "org.osgi.framework,virtio.api,virtio.api.net")
                        .job(SETUP + CONTAINERS + ROGUE + CARDS + KERNEL)
                        .limit(1200)
                        .run();
    }

    private static final String SETUP =
            """
            on_bus() { [ -e "/sys/bus/vdpa/devices/$1" ]; }
            bind() { echo "$2" > "/sys/bus/vdpa/drivers/$1/bind"; }
            session s
            session d
            modprobe -a vduse vhost_vdpa virtio_vdpa virtio_blk virtio_net crc32c_generic ext4
            echo 0 > /sys/bus/vdpa/drivers_autoprobe
            dd if=/dev/urandom of=/tmp/disk.img bs=1M count=1
            truncate -s 1M /tmp/blank.img
            truncate -s 1M /tmp/early.img
            truncate -s 32M /tmp/packed.img
            truncate -s 32M /tmp/split.img
            sectors() { [ "$(cat /sys/bus/vdpa/devices/$1/virtio*/block/*/size)" = "$2" ]; }
            check served tell s "export file:/tmp/disk.img vduse:disk; \
            export file:/tmp/blank.img,serial=b vduse:moved,split; \
            export file:/tmp/blank.img,serial=b vhost-user:/tmp/b.sock; \
            export ram:1MiB vduse:victim,split; export ram:1MiB vduse:doomed; \
            export file:/tmp/early.img vduse:early; \
            export switch:lan vduse:net0; export switch:lan vduse:net1; \
            export switch:lan vduse:net2,split; \
            export file:/tmp/packed.img vduse:packed; export file:/tmp/split.img vduse:split,split"
            check unprivileged unshare -U -r virtio -c "export ram:1MiB vduse:apart"
            """;

    /** One container drives what the other one serves. */
    private static final String CONTAINERS =
            """
            for name in disk moved victim doomed net2; do bind vhost_vdpa $name; done
            check disk sha256sum /tmp/disk.img
            check both tell d "attach vhost-vdpa:disk; features blk0; \
            copy blk0 file:/tmp/copy.img; perf blk0 --runtime=1 --mode=interrupt"
            truncate -s 2M /tmp/disk.img
            grown() { tell d "show blk0" | grep -q 'capacity *2097152 bytes'; }
            check grown-ours until_ok grown
            check swap tell d "attach vhost-vdpa:moved --name=moved; \
            load moved --runtime=60 --count=3 --swap=vhost-user:/tmp/b.sock"
            # A load wants a blank disk.
            dd if=/dev/zero of=/tmp/blank.img bs=1M count=1 conv=notrunc
            other=vhost-user:/tmp/b.sock
            tell d "show moved" | grep -q "address *$other" && other=vhost-vdpa:moved
            check back tell d "load moved --runtime=60 --count=2 --swap=$other; detach moved"
            kill -STOP $(cat /run/s.pid)
            (sleep 3; kill -CONT $(cat /run/s.pid)) &
            check late tell d "attach vhost-vdpa:victim --name=late; detach late"
            wait $!
            echo 2 > /sys/class/vduse/doomed/msg_timeout
            kill -STOP $(cat /run/s.pid)
            check silent tell d "attach vhost-vdpa:doomed"
            kill -CONT $(cat /run/s.pid)
            given_up() { tell s ls | grep -q 'given up by the kernel'; }
            check doomed until_ok given_up
            check anew tell s "unexport vduse:doomed; export ram:1MiB vduse:doomed"
            bind vhost_vdpa doomed
            check again tell d "attach vhost-vdpa:doomed --name=again; detach again"
            """;

    private static final String ROGUE =
            """
            check rogue program virtio.transport.vduse.RogueDriver \
            /dev/$(basename /sys/bus/vdpa/devices/victim/vhost-vdpa-*) /run/s.out
            check survived tell d "perf blk0 --runtime=1; detach blk0"
            """;

    /** The kernel's two cards on a switch of ours, one of them in a name space of its own. */
    private static final String CARDS =
            """
            card() { basename $(echo /sys/bus/vdpa/devices/$1/virtio*/net/*); }
            bind virtio_vdpa net0
            bind virtio_vdpa net1
            check cards until_ok test -e /sys/bus/vdpa/devices/net1/virtio*/net
            near=$(card net0) far=$(card net1)
            unshare -n sleep 100000 &
            other=$!
            there() { nsenter -t $other -n "$@"; }
            apart() { [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/1/ns/net)" ]; }
            until_ok apart
            ip link set $far netns $other
            ip addr add 10.9.8.1/24 dev $near
            ip link set $near up
            there ip addr add 10.9.8.2/24 dev $far
            there ip link set $far up
            check third tell d "attach vhost-vdpa:net2 --name=net2; features net2"
            check ping ping -c 5 -A -s 56 -W 20 10.9.8.2
            check large ping -c 5 -A -s 1472 -W 20 10.9.8.2
            check echo there ping -c 5 -A -s 1000 -W 20 10.9.8.1
            check heard tell d "hear net2"
            check detached tell d "detach net2"
            ip link set $near down
            """;

    /** The kernel's two disks, on packed and on split queues, when their server is killed. */
    private static final String KERNEL =
            """
            disk() { basename $(echo /sys/bus/vdpa/devices/$1/virtio*/block/*); }
            # Grown before there is a driver, of which no server can be told.
            truncate -s 2M /tmp/early.img
            bind virtio_vdpa early
            check grown-early until_ok sectors early 4096
            for name in packed split; do
                bind virtio_vdpa $name
                until_ok test -e /sys/bus/vdpa/devices/$name/virtio*/block
                mkdir -p /mnt/$name
                # Not busybox's own, which its shell prefers.
                check mkfs-$name /usr/bin/mke2fs -q -t ext4 /dev/$(disk $name)
                check mount-$name mount -t ext4 /dev/$(disk $name) /mnt/$name
                for folder in a b/c b/d; do
                    mkdir -p /mnt/$name/$folder
                    cp /opt/virtio/bundle/virtio.*.jar /mnt/$name/$folder/
                done
                rm /mnt/$name/a/virtio.ring.jar
                (cd /mnt/$name && find . -type f -exec sha256sum {} +) > /tmp/sums-$name
                umount /mnt/$name
                check remount-$name mount -t ext4 /dev/$(disk $name) /mnt/$name
                check tree-$name sh -c "cd /mnt/$name && sha256sum -c /tmp/sums-$name"
            done
            for name in packed split; do
                truncate -s 40M /tmp/$name.img
                check grown-$name until_ok sectors $name 81920
            done
            write_on() {
                for i in 0 1 2 3 4 5; do
                    dd if=/dev/urandom of=/mnt/$1/w$i bs=64k count=16 2> /dev/null
                    sync
                    echo $i >> /tmp/written-$1
                done
            }
            write_on packed &
            one=$!
            write_on split &
            two=$!
            until_ok test -e /tmp/written-packed
            until_ok test -e /tmp/written-split
            check killed kill -9 $(cat /run/s.pid)
            check followed tell d "export file:/tmp/packed.img vduse:packed; \
            export file:/tmp/split.img vduse:split,split; ls"
            wait $one
            wait $two
            for name in packed split; do
                check wrote-$name cat /tmp/written-$name
                (cd /mnt/$name && find . -type f -exec sha256sum {} +) > /tmp/sums-$name
                umount /mnt/$name
                echo 3 > /proc/sys/vm/drop_caches
                check again-$name mount -t ext4 /dev/$(disk $name) /mnt/$name
                check intact-$name sh -c "cd /mnt/$name && sha256sum -c /tmp/sums-$name"
                umount /mnt/$name
                check fsck-$name e2fsck -fn /dev/$(disk $name)
            done
            check withdraw tell d "unexport vduse:packed; \
            unexport vduse:split,split"
            check withdrawn sh -c '! test -e /dev/vduse/packed && ! test -e /dev/vduse/split'
            # For the host: QEMU's own disks.
            dd if=/tmp/packed.img of=/dev/vda bs=1M count=32
            dd if=/tmp/split.img of=/dev/vdb bs=1M count=32
            check said cat /run/s.out /run/d.out
            """;

    @Test
    void anotherContainerDrivesIt() {
        String said = guest.passed("both");
        assertEquals(VdpaIT.sums(guest.passed("disk")), VdpaIT.sums(said), said);
        assertTrue(said.matches("(?s).*RING_PACKED +yes +yes +yes.*"), said);
        assertTrue(said.contains(" IOPS"), said);
    }

    /** Root of a user name space may open /dev/vduse and not change the bus. */
    @Test
    void withoutTheRightToPutItOnTheBusTheCommandIsSaid() {
        String said = guest.passed("unprivileged");
        assertTrue(said.contains("as root, vdpa dev add name apart mgmtdev vduse"), said);
    }

    /** Before there is a driver, under one of ours, and under a mounted file system. */
    @ParameterizedTest
    @ValueSource(strings = {"early", "ours", "packed", "split"})
    void anImageThatGrowsIsALargerDisk(String disk) {
        guest.passed("grown-" + disk);
    }

    @Test
    void aDiskMovesToVhostUserAndBackUnderLoad() {
        guest.passed("swap");
        guest.passed("back");
        assertTrue(guest.exchanges("swap", 0, "swaps") > 0, "swaps there");
        assertTrue(guest.exchanges("back", 0, "swaps") > 0, "swaps back");
    }

    @Test
    void aServerThatAnswersLateIsWaitedFor() {
        guest.passed("late");
    }

    @Test
    void aServerThatWasSilentForTooLongIsGivenUpAndCanBeFollowed() {
        String said = guest.refused("silent");
        assertTrue(said.contains("its server does not answer"), said);
        guest.passed("doomed");
        guest.passed("anew");
        guest.passed("again");
    }

    @ParameterizedTest
    @CsvSource({
        "rings nowhere,refused",
        "buffer nowhere,broken",
        "buffer of 4 GiB,broken",
        "endless chain,broken",
        "table of one's own,broken",
        "head of no descriptor,broken",
        "index that jumps,broken",
        "memory taken away from what is in flight,survived",
        "memory cut off,its driver has cut off its memory"
    })
    void aBadDriverIsToldAndHarmsNobody(String misdeed, String outcome) {
        String said = guest.passed("rogue");
        assertTrue(
                said.lines().anyMatch(l -> l.startsWith(misdeed + ": ") && l.contains(outcome)),
                said);
        guest.passed("survived");
    }

    @Test
    void theKernelsCardsMeetOnASwitch() {
        for (String ping : List.of("ping", "large", "echo")) {
            String said = guest.passed(ping);
            assertTrue(said.contains("5 packets transmitted, 5 packets received"), said);
        }
    }

    /** The kernel takes no card with a control queue, and nothing is offered that needs one. */
    @Test
    void aCardHasNoControls() {
        String said = guest.passed("third");
        assertTrue(said.contains("MRG_RXBUF"), said);
        assertFalse(said.matches("(?s).*CTRL_\\w+ +yes.*"), said);
    }

    /** What goes to all, ARP's questions or IPv6's, everybody on the switch hears. */
    @Test
    void aCardOfOursHearsThem() {
        String said = guest.passed("heard");
        assertTrue(said.matches("to (ff:ff:ff:ff:ff:ff, type 0806|33:33:.*, type 86dd)"), said);
    }

    @ParameterizedTest
    @ValueSource(strings = {"packed", "split"})
    void theKernelMakesAFileSystemOnIt(String queues) {
        guest.passed("mkfs-" + queues);
        guest.passed("remount-" + queues);
        String said = guest.passed("tree-" + queues);
        assertTrue(said.contains("./b/c/virtio.api.jar: OK"), said);
    }

    @ParameterizedTest
    @ValueSource(strings = {"packed", "split"})
    void theFileSystemGoesOnWhenTheServerIsKilledAndFollowed(String queues) throws Exception {
        guest.passed("killed");
        guest.passed("followed");
        assertEquals("0\n1\n2\n3\n4\n5", guest.passed("wrote-" + queues));
        guest.passed("again-" + queues);
        String said = guest.passed("intact-" + queues);
        assertTrue(said.contains("./w5: OK"), said);
        guest.passed("fsck-" + queues);
        Disks.check(queues.equals("packed") ? packed : split);
    }

    @Test
    void aServerThatEndsTakesItsDisksAlong() {
        guest.passed("withdraw");
        guest.passed("withdrawn");
    }
}
