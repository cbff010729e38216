package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.util.List;

/** A disk that a container offers by VDUSE: to the guest's kernel, and to another container. */
class VduseIT {
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest =
                Guest.q35("vduse")
                        .limit(400)
                        .job(
                                """
                                # until_ok COMMAND...: tries for some minutes
                                until_ok() {
                                    local n=0
                                    until "$@" 2> /dev/null; do
                                        n=$((n + 1))
                                        [ $n -lt 2000 ] || return 1
                                        sleep 0.1
                                    done
                                }
                                # serve COMMANDS: exports in a container that stays
                                serve() {
                                    virtio -c "$1; serve" < /dev/null > /tmp/serve.log 2>&1 &
                                }
                                on_bus() { [ -e "/sys/bus/vdpa/devices/$1" ]; }
                                # killed: the container that serves dies at once
                                killed() { kill -9 $(pidof java); }
                                sums() { (cd /mnt && sha256sum *) > /tmp/sums; }
                                compare() { (cd /mnt && sha256sum -c /tmp/sums); }
                                modprobe -a vduse vhost_vdpa virtio_vdpa virtio_blk crc32c_generic ext4
                                echo 0 > /sys/bus/vdpa/drivers_autoprobe

                                truncate -s 64M /tmp/fs.img
                                serve "export file:/tmp/fs.img vduse:disk0"
                                check served until_ok on_bus disk0
                                echo disk0 > /sys/bus/vdpa/drivers/virtio_vdpa/bind
                                check appears until_ok test -b /dev/vda
                                # Not busybox's own, which its shell prefers.
                                check mkfs /usr/bin/mke2fs -q -t ext4 /dev/vda
                                check mount mount -t ext4 /dev/vda /mnt
                                cp /opt/jre/lib/*.so /opt/virtio/bundle/* /mnt/
                                sums
                                umount /mnt
                                check remount mount -t ext4 /dev/vda /mnt
                                check tree compare

                                write_on() {
                                    for i in 0 1 2 3 4 5 6 7; do
                                        dd if=/dev/urandom of=/mnt/w$i bs=64k count=16 2> /dev/null
                                        sync
                                        echo $i > /tmp/written
                                    done
                                }
                                write_on &
                                writer=$!
                                until_ok test -e /tmp/written
                                check killed killed
                                serve "export file:/tmp/fs.img vduse:disk0"
                                wait $writer
                                check wrote cat /tmp/written
                                sums
                                umount /mnt
                                echo 3 > /proc/sys/vm/drop_caches
                                check again mount -t ext4 /dev/vda /mnt
                                check intact compare
                                umount /mnt
                                check fsck e2fsck -fn /dev/vda
                                kill $(pidof java)
                                check withdrawn until_ok sh -c '! test -e /dev/vduse/disk0'
                                check image e2fsck -fn /tmp/fs.img
                                check log cat /tmp/serve.log

                                dd if=/dev/urandom of=/tmp/disk.img bs=1M count=8
                                truncate -s 8M /tmp/blank.img
                                serve "export file:/tmp/disk.img vduse:disk1; \
                                export file:/tmp/blank.img,serial=b vduse:disk2; \
                                export file:/tmp/blank.img,serial=b vhost-user:/tmp/b.sock"
                                until_ok on_bus disk2
                                until_ok test -S /tmp/b.sock
                                for disk in disk1 disk2; do
                                    echo $disk > /sys/bus/vdpa/drivers/vhost_vdpa/bind
                                done
                                check disk sha256sum /tmp/disk.img
                                check both container "attach vhost-vdpa:disk1; \
                                copy blk0 file:/tmp/copy.img; perf blk0 --runtime=2; detach blk0; \
                                attach vhost-vdpa:disk2 --name=moved; \
                                load moved --runtime=10 --swap=vhost-user:/tmp/b.sock"
                                """)
                        .run();
    }

    @Test
    void theKernelMakesAFileSystemOnIt() {
        guest.passed("served");
        guest.passed("appears");
        guest.passed("mkfs");
        guest.passed("remount");
        String said = guest.passed("tree");
        assertTrue(said.contains("libjvm") || said.contains("libjava.so: OK"), said);
    }

    @Test
    void theFileSystemGoesOnWhenTheServerIsKilledAndFollowed() {
        guest.passed("killed");
        assertEquals("7", guest.passed("wrote").strip());
        guest.passed("again");
        guest.passed("intact");
        guest.passed("fsck");
        guest.passed("image");
    }

    @Test
    void aServerThatEndsTakesItsDiskAlong() {
        guest.passed("withdrawn");
    }

    @Test
    void anotherContainerDrivesIt() {
        String said = guest.passed("both");
        String sum = VdpaIT.sums(guest.passed("disk")).getFirst();
        assertEquals(List.of(sum), VdpaIT.sums(said), said);
        assertTrue(said.contains(" IOPS"), said);
    }

    @Test
    void aDiskMovesToVhostUserAndBackUnderLoad() {
        String said = guest.passed("both");
        assertTrue(said.matches("(?s).*none lost, every block as acknowledged; [1-9].*"), said);
    }
}
