package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.Feature;
import virtio.api.net.NetDevice;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.NetQueue;
import virtio.api.net.NetStatistics;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** DPDK as the device: it forwards every frame back. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class TestpmdBackEndTest {
    private static final byte[] THERE = {2, 0, 0, 0, 0, 2};
    private static final int FRAMES = 1_000_000;
    private static final ValueLayout.OfLong NUMBER =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);

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

    private NetDevice attach(Path socket, String without) throws Exception {
        rig.core.bus().attach("vhost-user:" + socket + without, "net0");
        NetDevice card = rig.cards.get("net0");
        assertEquals(!without.contains("RING_PACKED"), card.features().has(Feature.RING_PACKED));
        assertEquals(!without.contains("MRG_RXBUF"), card.features().has(NetFeature.MRG_RXBUF));
        return card;
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                ",without=RING_PACKED",
                ",without=MRG_RXBUF",
                ",without=RING_PACKED,without=MRG_RXBUF",
                ",without=IN_ORDER,without=INDIRECT_DESC",
                ",without=EVENT_IDX,without=RING_PACKED"
            })
    void framesOfEverySizeComeBackAsTheyWere(String without) throws Exception {
        Path socket = folder.resolve("net.sock");
        try (Testpmd peer = Testpmd.start("net_vhost0,iface=" + socket + ",queues=1,tso=1")) {
            peer.command("set fwd io", "Set io");
            peer.command("start", "io packet forwarding");
            NetDevice card = attach(socket, without);
            byte[] mac = card.macAddress();
            int sent = 0;
            try (NetQueue queue = card.openQueue(0)) {
                for (int length = 60; length <= 65_535; length += length < 1600 ? 13 : 1223) {
                    byte[] frame = Rig.frame(length, THERE, mac, length);
                    Rig.send(queue, Rig.fill(queue, frame));
                    PacketBuffer got = Rig.receive(queue, 5000);
                    assertTrue(got != null, length + " bytes: " + card.statistics() + peer);
                    assertArrayEquals(frame, Rig.bytes(got), length + " bytes");
                    queue.free(new PacketBuffer[] {got}, 1);
                    sent++;
                }
                byte[] largest = Rig.frame(65_535, THERE, mac, 1);
                Rig.send(queue, Rig.fill(queue, largest));
                Rig.expect(largest, queue);
            }
            NetStatistics.Pair pair = card.statistics().queues().getFirst();
            assertEquals(sent + 1, pair.receivedFrames());
            assertEquals(Map.of(), pair.dropped());
            rig.core.bus().detach("net0");
        }
    }

    /**
     * Of checksums and segmentation testpmd keeps nothing by default: it fills the checksum in and
     * sends even the largest packet as one frame. With the flags of old it hands all of it on.
     */
    @ParameterizedTest
    @CsvSource({
        "false, ''",
        "false, ',without=RING_PACKED'",
        "true, ''",
        "true, ',without=RING_PACKED'",
    })
    @Tag("DRV-NET-018")
    @Tag("DRV-NET-030")
    @Tag("DRV-NET-032")
    @Tag("DRV-NET-033")
    @Tag("DRV-NET-035")
    void offloadsComeBackAsThePeerHandlesThem(boolean handedOn, String without) throws Exception {
        Path socket = folder.resolve("net.sock");
        String port = "net_vhost0,iface=%s,queues=1,tso=1,legacy-ol-flags=%d";
        try (Testpmd peer = Testpmd.start(port.formatted(socket, handedOn ? 1 : 0))) {
            peer.command("set fwd io", "Set io");
            peer.command("start", "io packet forwarding");
            NetDevice card = attach(socket, without);
            byte[] mac = card.macAddress();
            try (NetQueue queue = card.openQueue(0)) {
                forwarded(queue, NetFeatures.udp(THERE, mac, 333), 6, 0, handedOn);
                forwarded(queue, NetFeatures.tcp(THERE, mac, 334), 16, 0, handedOn);
                forwarded(queue, NetFeatures.tcp(THERE, mac, 40_000), 16, 1448, handedOn);
            }
            assertEquals(Map.of(), card.statistics().queues().getFirst().dropped());
            rig.core.bus().detach("net0");
        }
    }

    private static void forwarded(
            NetQueue queue, byte[] packet, int checksumOffset, int segment, boolean handedOn)
            throws Exception {
        PacketBuffer frame = Rig.fill(queue, packet);
        frame.requestChecksum(34, checksumOffset);
        if (segment != 0) {
            frame.requestSegmentation(NetHeader.GSO_TCPV4, segment, 54);
        }
        Rig.send(queue, frame);
        PacketBuffer got = Rig.receive(queue, 10_000);
        assertTrue(got != null, packet.length + " bytes come back");
        byte[] bytes = Rig.bytes(got);
        assertEquals(handedOn, got.needsChecksum());
        if (handedOn) {
            assertEquals(34, got.checksumStart());
            assertEquals(checksumOffset, got.checksumOffset());
            assertEquals(segment == 0 ? NetHeader.GSO_NONE : NetHeader.GSO_TCPV4, got.gsoType());
            assertEquals(segment, got.gsoSize());
            assertEquals(segment == 0 ? 0 : 54, got.headerLength());
        } else {
            assertEquals(NetHeader.GSO_NONE, got.gsoType());
            assertTrue(NetFeatures.checksumIsRight(bytes));
        }
        int field = 34 + checksumOffset;
        if (handedOn && segment == 0) {
            assertArrayEquals(packet, bytes);
        } else {
            // Filled in; or, to be segmented, the pseudo header's without the length, as drivers of
            // real cards want it.
            System.arraycopy(packet, field, bytes, field, Short.BYTES);
            assertArrayEquals(packet, bytes);
        }
        queue.free(new PacketBuffer[] {got}, 1);
    }

    @ParameterizedTest
    @ValueSource(strings = {"", ",without=RING_PACKED"})
    void aMillionFramesAreNotLost(String without) throws Exception {
        Path socket = folder.resolve("net.sock");
        try (Testpmd peer = Testpmd.start("net_vhost0,iface=" + socket + ",queues=1")) {
            peer.command("set fwd io", "Set io");
            peer.command("start", "io packet forwarding");
            NetDevice card = attach(socket, without);
            byte[] frame = Rig.frame(64, THERE, card.macAddress(), 1);
            var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
            long allocated = 0;
            int sent = 0;
            int received = 0;
            long next = 0;
            try (NetQueue queue = card.openQueue(0)) {
                PacketBuffer[] out = new PacketBuffer[32];
                PacketBuffer[] in = new PacketBuffer[32];
                long quiet = System.nanoTime();
                while (System.nanoTime() - quiet < TimeUnit.SECONDS.toNanos(sent < FRAMES ? 20 : 2)
                        && received < FRAMES) {
                    if (sent == FRAMES / 2) {
                        allocated = threads.getCurrentThreadAllocatedBytes();
                    }
                    if (sent < FRAMES && sent - received < 192) {
                        int count = queue.allocate(out);
                        for (int i = 0; i < count; i++) {
                            out[i].frame(PacketBuffer.HEADROOM, 64);
                            var segment = out[i].segment();
                            java.lang.foreign.MemorySegment.copy(
                                    frame,
                                    0,
                                    segment,
                                    ValueLayout.JAVA_BYTE,
                                    PacketBuffer.HEADROOM,
                                    64);
                            segment.set(NUMBER, PacketBuffer.HEADROOM + 16, sent + i);
                        }
                        int taken = queue.send(out, count);
                        if (taken < count) {
                            System.arraycopy(out, taken, out, 0, count - taken);
                            queue.free(out, count - taken);
                        }
                        sent += taken;
                    }
                    int count = queue.receive(in);
                    for (int i = 0; i < count; i++) {
                        long number = in[i].segment().get(NUMBER, in[i].offset() + 16);
                        if (number < next || in[i].length() != 64) {
                            throw new AssertionError(number + " after " + next + ": " + in[i]);
                        }
                        next = number + 1;
                    }
                    if (count > 0) {
                        quiet = System.nanoTime();
                        received += count;
                        queue.free(in, count);
                    }
                }
                allocated = threads.getCurrentThreadAllocatedBytes() - allocated;
            }
            System.out.printf(
                    "testpmd%s: %d frames sent, %d received, %.3f bytes allocated for each%n",
                    without, sent, received, allocated / (FRAMES / 2.0));
            assertEquals(FRAMES, peer.count("RX-packets"));
            assertEquals(FRAMES, received + peer.count("TX-errors"), peer.toString());
            assertEquals(Map.of(), card.statistics().queues().getFirst().dropped());
            rig.core.bus().detach("net0");
        }
    }
}
