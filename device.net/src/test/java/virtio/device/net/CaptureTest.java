package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.Registration;
import virtio.api.VirtioException;
import virtio.api.net.DropReason;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** Who captures sees what consumers send and receive, and is in nobody's way. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class CaptureTest {
    @TempDir Path folder;
    private final List<String> seen = new CopyOnWriteArrayList<>();
    private Rig rig;
    private NetDevice card;

    @BeforeEach
    void open() throws Exception {
        rig = new Rig(folder);
        card = rig.card("mmio", "loopback:,mtu=9000,pairs=2", "net0");
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        rig.close();
    }

    private void note(int pair, boolean received, PacketBuffer frame) {
        seen.add("%d %s %d".formatted(pair, received ? "in" : "out", frame.frameLength()));
    }

    private long unclaimed() {
        return card.statistics()
                .queues()
                .getFirst()
                .dropped()
                .getOrDefault(DropReason.UNCLAIMED, 0L);
    }

    private void thereAndBack(NetQueue queue, int length) throws Exception {
        byte[] frame = Rig.frame(length, card.macAddress(), card.macAddress(), length);
        Rig.send(queue, Rig.fill(queue, frame));
        Rig.expect(frame, queue);
    }

    @Test
    void framesAreSeenBothWaysWhileItLasts() throws Exception {
        try (NetQueue queue = card.openQueue(0)) {
            thereAndBack(queue, 60);
            Registration capture = card.capture(this::note);
            thereAndBack(queue, 61);
            thereAndBack(queue, 9000);
            assertThrows(VirtioException.class, () -> card.capture(this::note));
            capture.close();
            thereAndBack(queue, 62);
            capture.close();
            card.capture(this::note).close();
        }
        assertEquals(List.of("0 out 61", "0 in 61", "0 out 9000", "0 in 9000"), seen);
    }

    @Test
    void whatNobodyTakesIsNotSeen() throws Exception {
        Registration capture = card.capture(this::note);
        try (NetQueue queue = card.openQueue(0)) {
            byte[] frame = Rig.frame(60, card.macAddress(), card.macAddress(), 1);
            Rig.send(queue, Rig.fill(queue, frame));
        }
        long end = System.nanoTime() + 10_000_000_000L;
        while (unclaimed() == 0) {
            assertTrue(System.nanoTime() < end, "the frame comes back");
            // Opening throws away what has come before.
            card.openQueue(0).close();
        }
        capture.close();
        assertEquals(List.of("0 out 60"), seen);
    }

    @Test
    void oneThatThrowsLeavesTheCardAsItWas() throws Exception {
        try (NetQueue queue = card.openQueue(0)) {
            byte[] frame = Rig.frame(60, card.macAddress(), card.macAddress(), 1);
            Registration capture =
                    card.capture(
                            (pair, received, f) -> {
                                if (received) {
                                    throw new IllegalStateException("of the tap's own");
                                }
                            });
            Rig.send(queue, Rig.fill(queue, frame));
            assertThrows(IllegalStateException.class, () -> Rig.receive(queue, 10_000));
            capture.close();
            thereAndBack(queue, 61);
        }
    }
}
