package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.nio.file.Path;
import java.util.Arrays;

/** Bursts that cannot be taken: nothing of them is, and no buffer is lost or there twice. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class BufferMisuseTest {
    @TempDir Path folder;
    private Rig rig;
    private NetDevice card;
    private NetQueue queue;
    private PacketPool pool;

    @BeforeEach
    void open() throws Exception {
        rig = new Rig(folder);
        card = rig.card("mmio", "loopback:,mtu=9000", "net0");
        queue = card.openQueue(0);
        PacketBuffer[] one = {frame()};
        pool = ((Packet) one[0]).pool;
        queue.free(one, 1);
    }

    @AfterEach
    void everyBufferIsThereOnce() throws Exception {
        assertEquals(pool.slots.length, count(Packet.FREE) + count(Packet.POSTED));
        assertEquals(count(Packet.FREE), pool.free());
        PacketBuffer[] buffers = new PacketBuffer[pool.slots.length];
        int count = queue.allocate(buffers);
        assertEquals(count, Arrays.stream(buffers).limit(count).distinct().count());
        queue.close();
        rig.close();
    }

    private long count(byte state) {
        return Arrays.stream(pool.slots).filter(p -> p.state == state).count();
    }

    private PacketBuffer frame() {
        return Rig.fill(queue, Rig.frame(60, card.macAddress(), card.macAddress(), 1));
    }

    /** A frame in two buffers. */
    private PacketBuffer chained() {
        return Rig.fill(queue, Rig.frame(3000, card.macAddress(), card.macAddress(), 1));
    }

    private void refused(String message, PacketBuffer... burst) {
        for (boolean send : new boolean[] {false, true}) {
            String said =
                    assertThrows(
                                    IllegalArgumentException.class,
                                    () -> {
                                        if (send) {
                                            queue.send(burst, burst.length);
                                        } else {
                                            queue.free(burst, burst.length);
                                        }
                                    })
                            .getMessage();
            assertEquals(message.formatted(burst[burst.length - 1]), said);
        }
    }

    private void sentOnce(PacketBuffer frame) throws Exception {
        Rig.send(queue, frame);
        PacketBuffer back = Rig.receive(queue, 10_000);
        assertNotNull(back);
        queue.free(new PacketBuffer[] {back}, 1);
        assertNull(Rig.receive(queue, 0), "it is sent once");
    }

    @Test
    void aBufferThatIsThereTwice() throws Exception {
        PacketBuffer first = frame();
        PacketBuffer twice = frame();
        refused("element 2: %s is given twice", first, twice, twice);
        sentOnce(first);
        sentOnce(twice);
    }

    @Test
    void aBufferThatIsChainedToAnother() throws Exception {
        PacketBuffer frame = chained();
        refused("element 1: %s is given twice", frame, frame.next());
        sentOnce(frame);
    }

    @Test
    void aBufferThatIsChainedToTwo() throws Exception {
        PacketBuffer frame = chained();
        PacketBuffer other = frame();
        other.chain(frame.next());
        PacketBuffer[] both = {frame, other};
        for (int i = 0; i < 2; i++) {
            assertThrows(IllegalArgumentException.class, () -> queue.free(both, 2));
            assertThrows(IllegalArgumentException.class, () -> queue.send(both, 2));
        }
        other.chain(null);
        sentOnce(frame);
        sentOnce(other);
    }

    @Test
    void aBufferThatIsChainedToItself() throws Exception {
        PacketBuffer frame = frame();
        frame.chain(frame);
        refused("element 0: %s is given twice", frame);
        frame.chain(null);
        sentOnce(frame);
    }

    @Test
    void aBufferThatIsFreeAlready() throws Exception {
        PacketBuffer frame = chained();
        PacketBuffer freed = frame();
        queue.free(new PacketBuffer[] {freed}, 1);
        refused("element 1: %s is not the caller's", frame, freed);
        PacketBuffer other = frame.next();
        frame.chain(freed);
        assertThrows(
                IllegalArgumentException.class, () -> queue.free(new PacketBuffer[] {frame}, 1));
        frame.chain(other);
        sentOnce(frame);
    }

    @Test
    void moreBuffersThanThereAre() throws Exception {
        PacketBuffer frame = frame();
        PacketBuffer[] one = {frame};
        assertThrows(IndexOutOfBoundsException.class, () -> queue.free(one, 2));
        assertThrows(IndexOutOfBoundsException.class, () -> queue.send(one, 2));
        sentOnce(frame);
    }

    @Test
    void aFrameThatIsTooLongBehindGoodOnes() throws Exception {
        PacketBuffer good = frame();
        PacketBuffer chained = chained();
        PacketBuffer shortened = frame();
        shortened.frame(PacketBuffer.HEADROOM, 13);
        PacketBuffer[] burst = {good, chained, shortened};
        assertThrows(IllegalArgumentException.class, () -> queue.send(burst, 3));
        sentOnce(good);
        sentOnce(chained);
        queue.free(new PacketBuffer[] {shortened}, 1);
    }

    @Test
    void aTapThatThrowsDoesNotGiveBackWhatTheDeviceHas() throws Exception {
        AutoCloseable capture =
                card.capture(
                        (pair, received, frame) -> {
                            throw new IllegalStateException("of the tap's own");
                        });
        PacketBuffer[] one = {frame()};
        assertThrows(IllegalStateException.class, () -> queue.send(one, 1));
        assertThrows(IllegalArgumentException.class, () -> queue.free(one, 1));
        capture.close();
        // Goes out with it.
        Rig.send(queue, frame());
        for (int i = 0; i < 2; i++) {
            PacketBuffer back = Rig.receive(queue, 10_000);
            assertNotNull(back);
            queue.free(new PacketBuffer[] {back}, 1);
        }
    }
}
