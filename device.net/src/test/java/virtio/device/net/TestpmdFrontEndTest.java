package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;
import virtio.api.net.ReceiveMode;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** DPDK as the driver of a card on our switch: it forwards every frame back. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class TestpmdFrontEndTest {
    private static final byte[] THERE = {2, 0, 0, 0, 0, 2};

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

    @ParameterizedTest
    @ValueSource(strings = {"mrg_rxbuf=1,in_order=0", "mrg_rxbuf=0,in_order=0", "mrg_rxbuf=1"})
    void framesComeBackAsTheyWere(String options) throws Exception {
        Testpmd.tool();
        NetDevice card = rig.card("mmio", "switch:lan", "net0");
        Path socket = folder.resolve("net.sock");
        rig.core.bus().export("switch:lan", "vhost-user:" + socket);
        card.receiveModes(Set.of(ReceiveMode.PROMISCUOUS));
        try (Testpmd peer =
                        Testpmd.start("net_virtio_user0,path=" + socket + ",queues=1," + options);
                NetQueue queue = card.openQueue(0)) {
            peer.command("set fwd io", "Set io");
            peer.command("start", "io packet forwarding");
            byte[] first = Rig.frame(64, THERE, card.macAddress(), 0);
            for (int tries = 0; !comesBack(queue, first, 2); tries++) {
                // The peer's rings start some time after it says so.
                assertTrue(tries < 10, "nothing comes back: " + peer);
            }
            for (int length = 60; length <= 1514; length += 101) {
                byte[] frame = Rig.frame(length, THERE, card.macAddress(), length);
                assertTrue(comesBack(queue, frame, 20), length + " bytes are lost: " + peer);
            }
        }
    }

    private static boolean comesBack(NetQueue queue, byte[] frame, int seconds) throws Exception {
        Rig.send(queue, Rig.fill(queue, frame));
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        while (System.nanoTime() < end) {
            PacketBuffer got = Rig.receive(queue, 1000);
            // The peer's own announcements come in between.
            boolean same = got != null && Arrays.equals(frame, Rig.bytes(got));
            if (got != null) {
                queue.free(new PacketBuffer[] {got}, 1);
            }
            if (same) {
                return true;
            }
        }
        return false;
    }
}
