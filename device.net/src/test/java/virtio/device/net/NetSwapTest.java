package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.net.DropReason;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.NetStatistics;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Map;

/** The transport below a card is exchanged while frames go through it. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class NetSwapTest {
    private static final int SWAPS = 10;
    private static final int WINDOW = 64;
    private static final String MAC = ",mac=52:54:00:00:00:01";
    private static final ValueLayout.OfInt NUMBER = ValueLayout.JAVA_INT_UNALIGNED;
    private static final ValueLayout.OfShort TYPE =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);

    @TempDir Path folder;
    private Rig rig;
    private volatile boolean stop;
    private volatile Throwable failure;

    @BeforeEach
    void open() {
        rig = new Rig(folder);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        rig.close();
    }

    @Test
    void whatIsSentIsReceivedOrCounted() throws Exception {
        String near = rig.address("mmio");
        String far = rig.address("vhost-user");
        rig.core.bus().export("switch:lan" + MAC, near);
        rig.core.bus().export("switch:lan" + MAC, far);
        rig.core.bus().attach(near, "a");
        NetDevice a = rig.cards.get("a");
        NetDevice b = rig.card("mmio", "switch:lan", "b");
        try (NetQueue from = a.openQueue(0);
                NetQueue to = b.openQueue(0)) {
            long before = a.statistics().queues().getFirst().sentFrames();
            Thread sender = Thread.ofPlatform().start(() -> send(a, from, b.macAddress()));
            int received = 0;
            int last = -1;
            PacketBuffer[] burst = new PacketBuffer[64];
            for (int swap = 0; swap < SWAPS; swap++) {
                int enough = received + 200;
                while (received < enough && failure == null) {
                    int count = to.receive(burst, 1000);
                    for (int i = 0; i < count; i++) {
                        last = number(burst[i], last);
                    }
                    received += count;
                    to.free(burst, count);
                }
                rig.core.bus().swap("a", swap % 2 == 0 ? far : near);
                assertSame(a, rig.cards.get("a"));
            }
            stop = true;
            sender.join();
            assertEquals(null, failure);
            for (int count = to.receive(burst, 200); count > 0; count = to.receive(burst, 200)) {
                received += count;
                to.free(burst, count);
            }
            NetStatistics.Pair all = a.statistics().queues().getFirst();
            long sent = all.sentFrames() - before;
            long lost = all.dropped().getOrDefault(DropReason.IN_FLIGHT, 0L);
            System.out.printf(
                    "%d swaps under traffic: %d frames sent, %d received, %d lost in flight%n",
                    SWAPS, sent, received, lost);
            // What was in flight may have arrived all the same.
            assertTrue(received >= sent - lost && received <= sent, all.toString());
            assertEquals(Map.of(), b.statistics().queues().getFirst().dropped());
        }
    }

    /** Whatever a peer had of us when we left it is lost, and nothing else. */
    @Test
    void betweenTwoPeersNoMoreIsLostThanWasInFlight() throws Exception {
        Path[] sockets = {folder.resolve("a.sock"), folder.resolve("b.sock")};
        try (Testpmd a = Testpmd.start("net_vhost0,iface=" + sockets[0] + ",queues=1");
                Testpmd b = Testpmd.start("net_vhost0,iface=" + sockets[1] + ",queues=1")) {
            for (Testpmd peer : new Testpmd[] {a, b}) {
                peer.command("set fwd io", "Set io");
                peer.command("start", "io packet forwarding");
            }
            rig.core.bus().attach("vhost-user:" + sockets[0], "net0");
            NetDevice card = rig.cards.get("net0");
            byte[] frame = Rig.frame(64, new byte[] {2, 0, 0, 0, 0, 2}, card.macAddress(), 1);
            int swaps = 6;
            try (NetQueue queue = card.openQueue(0)) {
                Thread frames = Thread.ofPlatform().start(() -> exchange(queue, frame));
                for (int swap = 1; swap <= swaps; swap++) {
                    int enough = returned + 1000;
                    long end = System.nanoTime() + 20_000_000_000L;
                    while (returned < enough && failure == null) {
                        assertTrue(System.nanoTime() < end, "frames come back: " + a + b);
                        Thread.sleep(1);
                    }
                    rig.core.bus().swap("net0", "vhost-user:" + sockets[swap % 2]);
                }
                int enough = returned + 1000;
                while (returned < enough && failure == null) {
                    Thread.sleep(1);
                }
                stop = true;
                frames.join();
            }
            assertEquals(null, failure);
            NetStatistics.Pair all = card.statistics().queues().getFirst();
            System.out.printf(
                    "%d swaps between peers: %d frames sent, %d came back%n",
                    swaps, all.sentFrames(), returned);
            assertEquals(returned, all.receivedFrames());
            // What was in flight, and with it the window's rest at the end.
            assertTrue(all.sentFrames() - returned <= (swaps + 1) * WINDOW, all.toString());
            assertTrue(
                    all.dropped().keySet().stream().allMatch(r -> r == DropReason.IN_FLIGHT),
                    all.toString());
            rig.core.bus().detach("net0");
        }
    }

    private volatile int returned;

    /** Keeps a window of numbered frames on the way, and sees that they come back in order. */
    private void exchange(NetQueue queue, byte[] frame) {
        try {
            int sent = 0;
            int last = -1;
            PacketBuffer[] one = new PacketBuffer[1];
            PacketBuffer[] burst = new PacketBuffer[WINDOW];
            while (!stop) {
                // Those below the last one that came back are gone.
                int room = WINDOW - (sent - 1 - last);
                if (room > 0 && queue.allocate(one) == 1) {
                    one[0].frame(PacketBuffer.HEADROOM, frame.length);
                    var segment = one[0].segment();
                    java.lang.foreign.MemorySegment.copy(
                            frame, 0, segment, ValueLayout.JAVA_BYTE, one[0].offset(), 64);
                    segment.set(NUMBER, one[0].offset() + 14, sent);
                    while (queue.send(one, 1) == 0 && !stop) {
                        Thread.onSpinWait();
                    }
                    sent++;
                }
                int count = room > 0 ? queue.receive(burst) : queue.receive(burst, 200);
                for (int i = 0; i < count; i++) {
                    last = number(burst[i], last);
                }
                returned += count;
                queue.free(burst, count);
                if (room <= 0 && count == 0) {
                    // The whole window is lost.
                    last = sent - 1;
                }
            }
        } catch (InterruptedException | RuntimeException | AssertionError e) {
            failure = e;
        }
    }

    /** Frames come in the order they were sent in, with announcements between them. */
    private static int number(PacketBuffer frame, int last) {
        if (frame.segment().get(TYPE, frame.offset() + 12) != (short) 0x88B5) {
            return last;
        }
        int number = frame.segment().get(NUMBER, frame.offset() + 14);
        assertTrue(number > last, number + " after " + last);
        return number;
    }

    /** As fast as the other takes them: a window of frames that a full port does not drop. */
    private void send(NetDevice card, NetQueue queue, byte[] to) {
        try {
            int number = 0;
            PacketBuffer[] one = new PacketBuffer[1];
            while (!stop) {
                byte[] frame = Rig.frame(64, to, card.macAddress(), 1);
                if (queue.allocate(one) == 0) {
                    continue;
                }
                one[0].frame(PacketBuffer.HEADROOM, frame.length);
                var segment = one[0].segment();
                java.lang.foreign.MemorySegment.copy(
                        frame, 0, segment, ValueLayout.JAVA_BYTE, one[0].offset(), frame.length);
                segment.set(NUMBER, one[0].offset() + 14, number++);
                while (queue.send(one, 1) == 0 && !stop) {
                    Thread.onSpinWait();
                }
                Thread.sleep(0, 50_000);
            }
        } catch (InterruptedException | RuntimeException e) {
            failure = e;
        }
    }

    @Test
    void anotherCardIsRefusedAndTheOldOneServesOn() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:" + MAC, "net0");
        String other = rig.address("mmio");
        rig.core.bus().export("loopback:,mac=52:54:00:00:00:02", other);
        String said =
                assertThrows(VirtioException.class, () -> rig.core.bus().swap("net0", other))
                        .getMessage();
        assertTrue(
                said.contains("address is 52:54:00:00:00:01, of the new device 52:54:00:00:00:02"),
                said);
        String poorer = rig.address("mmio");
        rig.core.bus().export("loopback:,without=CSUM" + NetFeatures.WITHOUT_HOST + MAC, poorer);
        said =
                assertThrows(VirtioException.class, () -> rig.core.bus().swap("net0", poorer))
                        .getMessage();
        assertTrue(said.contains("CSUM is in use"), said);
        try (NetQueue queue = card.openQueue(0)) {
            byte[] frame = Rig.frame(99, card.macAddress(), card.macAddress(), 1);
            Rig.send(queue, Rig.fill(queue, frame));
            Rig.expect(frame, queue);
        }
    }

    @Test
    void buffersAreTheConsumersOverASwap() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:" + MAC, "net0");
        String far = rig.address("vhost-user");
        rig.core.bus().export("loopback:" + MAC, far);
        byte[] mac = card.macAddress();
        try (NetQueue queue = card.openQueue(0)) {
            byte[] kept = Rig.frame(1500, mac, mac, 1);
            PacketBuffer frame = Rig.fill(queue, kept);
            rig.core.bus().swap("net0", far);
            Rig.send(queue, frame);
            Rig.expect(kept, queue);
        }
    }

    @Test
    void aCardThatGoesTakesItsConsumersAlongByName() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:" + MAC, "net0");
        NetQueue queue = card.openQueue(0);
        PacketBuffer frame = Rig.fill(queue, new byte[60]);
        rig.core.bus().detach("net0");
        assertEquals("the device was removed", queue.goneReason());
        assertEquals(0, queue.receive(new PacketBuffer[1], 10_000));
        assertEquals(0, queue.send(new PacketBuffer[] {frame}, 1));
        assertThrows(
                IllegalStateException.class, () -> frame.segment().get(ValueLayout.JAVA_BYTE, 0));
        queue.close();
        assertThrows(VirtioException.class, () -> card.openQueue(0));
    }
}
