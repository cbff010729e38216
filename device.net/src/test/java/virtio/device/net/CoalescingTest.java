package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.VirtioException;
import virtio.api.net.Coalescing;
import virtio.api.net.Duplex;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

/** Notifications that the real backends delay. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class CoalescingTest {
    private static final int FOREVER = 100_000_000;

    @TempDir Path folder;
    private Rig rig;

    @BeforeEach
    void open() {
        rig = new Rig(folder);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        rig.close();
    }

    /**
     * Frames that are there when somebody who waits is told of the first; 0 when nobody is.
     *
     * @param told whether that is to be waited for
     */
    private static int toldOf(NetDevice card, NetQueue queue, int frames, boolean told)
            throws Exception {
        AtomicInteger got = new AtomicInteger();
        PacketBuffer[] burst = new PacketBuffer[64];
        Thread waiting =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    try {
                                        got.set(queue.receive(burst, 20_000));
                                    } catch (InterruptedException e) {
                                        // Nobody has told it.
                                    }
                                });
        // Asleep until it is told: it sleeps for a lock as well, but not on the queue.
        while (LockSupport.getBlocker(waiting) != queue) {
            Thread.onSpinWait();
        }
        byte[] mac = card.macAddress();
        long before = card.statistics().queues().getFirst().sentFrames();
        for (int i = 0; i < frames; i++) {
            Rig.send(queue, Rig.fill(queue, Rig.frame(60, mac, mac, i)));
        }
        assertEquals(before + frames, card.statistics().queues().getFirst().sentFrames());
        waiting.join(told ? 10_000 : 100);
        waiting.interrupt();
        waiting.join();
        queue.free(burst, got.get());
        return got.get();
    }

    @ParameterizedTest
    @ValueSource(strings = {"", ",without=MRG_RXBUF"})
    @Tag("DRV-NET-090")
    void whoWaitsIsToldOfSeveralFramesAtOnce(String without) throws Exception {
        NetDevice card = rig.card("mmio", "loopback:" + without, "net0");
        assertEquals(Coalescing.NONE, card.coalescing(0));
        try (NetQueue queue = card.openQueue(0)) {
            card.coalescing(new Coalescing(8, FOREVER, 0, 0));
            assertEquals(new Coalescing(8, FOREVER, 0, 0), card.coalescing(0));
            assertEquals(8, toldOf(card, queue, 8, true));
            assertEquals(0, toldOf(card, queue, 7, false));
            // They are there for who looks.
            PacketBuffer[] burst = new PacketBuffer[64];
            int count = 0;
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            while (count < 7 && System.nanoTime() < end) {
                int more = queue.receive(burst);
                queue.free(burst, more);
                count += more;
            }
            assertEquals(7, count);
            // The seven count no more once the device has taken notice.
            card.coalescing(Coalescing.NONE);
            assertEquals(1, toldOf(card, queue, 1, true));
            card.coalescing(new Coalescing(1000, 200_000, 0, 0));
            long start = System.nanoTime();
            assertTrue(toldOf(card, queue, 8, true) > 0);
            assertTrue(System.nanoTime() - start >= TimeUnit.MILLISECONDS.toNanos(200));
            card.coalescing(Coalescing.NONE);
            assertEquals(1, toldOf(card, queue, 1, true));
        }
    }

    @Test
    @Tag("DRV-NET-089")
    @Tag("DRV-NET-091")
    void onePairCanBeSetByItself() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,pairs=2", "net0");
        Coalescing all = new Coalescing(10, 20, 30, 40);
        Coalescing one = new Coalescing(8, FOREVER, 3, 4);
        card.coalescing(all);
        card.coalescing(1, new Coalescing(5, 6, 7, 8));
        assertEquals(all, card.coalescing(0));
        assertEquals(new Coalescing(5, 6, 7, 8), card.coalescing(1));
        card.coalescing(0, one);
        assertEquals(one, card.coalescing(0));
        card.coalescing(all);
        assertEquals(all, card.coalescing(1));
        assertThrows(IllegalArgumentException.class, () -> card.coalescing(2, all));
        assertThrows(IllegalArgumentException.class, () -> card.coalescing(-1));
        assertThrows(IllegalArgumentException.class, () -> new Coalescing(1, -1, 0, 0));
    }

    @Test
    void whatWasSetMovesWithTheCard() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,mac=52:54:00:00:00:01", "net0");
        card.coalescing(new Coalescing(1, 1, 1, 1));
        card.coalescing(0, new Coalescing(8, FOREVER, 0, 0));
        try (NetQueue queue = card.openQueue(0)) {
            swap("loopback:,mac=52:54:00:00:00:01");
            assertEquals(8, toldOf(card, queue, 8, true));
            for (String without : new String[] {"NOTF_COAL", "VQ_NOTF_COAL"}) {
                String said =
                        assertThrows(
                                        VirtioException.class,
                                        () ->
                                                swap(
                                                        "loopback:,mac=52:54:00:00:00:01,without="
                                                                + without))
                                .getMessage();
                assertTrue(said.contains(without + " is in use"), said);
            }
            assertEquals(8, toldOf(card, queue, 8, true));
        }
    }

    private void swap(String backend) throws VirtioException {
        String address = rig.address("mmio");
        rig.core.bus().export(backend, address);
        rig.core.bus().swap("net0", address);
    }

    @Test
    void whatTheDeviceCannotIsRefusedByName() throws Exception {
        NetDevice card =
                rig.card("mmio", "loopback:,without=NOTF_COAL,without=VQ_NOTF_COAL", "net0");
        String said =
                assertThrows(VirtioException.class, () -> card.coalescing(Coalescing.NONE))
                        .getMessage();
        assertTrue(said.contains(": NOTF_COAL is not negotiated"), said);
        said =
                assertThrows(VirtioException.class, () -> card.coalescing(0, Coalescing.NONE))
                        .getMessage();
        assertTrue(said.contains(": VQ_NOTF_COAL is not negotiated"), said);
        assertEquals(Coalescing.NONE, card.coalescing(0));
    }

    @Test
    @Tag("DEV-NET-010")
    @Tag("DEV-NET-011")
    @Tag("DRV-NET-010")
    @Tag("DEV-NET-011")
    void speedAndDuplexAreWhatTheDeviceSays() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,speed=2500", "net0");
        assertEquals(2500, card.speedMegabits());
        assertEquals(Duplex.FULL, card.duplex());
        NetDevice other = rig.card("mmio", "loopback:", "net1");
        assertEquals(-1, other.speedMegabits());
        assertEquals(Duplex.UNKNOWN, other.duplex());
    }
}
