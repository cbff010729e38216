package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.FramePort;
import virtio.api.net.InternetChecksum;
import virtio.api.net.NetDevice;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.NetQueue;
import virtio.api.net.NetStatistics;
import virtio.api.net.PacketBuffer;
import virtio.api.net.ReceiveMode;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The driver on the real core, over both transports, to the real backends. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class NetOverTransportsTest {
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
    @CsvSource({"mmio,''", "vhost-user,''", "mmio,',without=MRG_RXBUF'"})
    @Tag("DRV-NET-014")
    @Tag("DRV-NET-050")
    @Tag("DEV-NET-027")
    @Tag("DEV-NET-028")
    @Tag("DEV-NET-030")
    @Tag("DEV-NET-032")
    void framesOfEverySizeComeBackAsTheyWere(String transport, String without) throws Exception {
        NetDevice card = rig.card(transport, "loopback:,mtu=65535" + without, "net0");
        assertEquals(65535, card.mtu());
        byte[] mac = card.macAddress();
        try (NetQueue queue = card.openQueue(0)) {
            for (int length = 14; length <= 65_535 + 14; length += length < 200 ? 1 : 997) {
                byte[] frame = Rig.frame(length, mac, mac, length);
                Rig.send(queue, Rig.fill(queue, frame));
                Rig.expect(frame, queue);
            }
        }
        assertEquals(Map.of(), card.statistics().queues().getFirst().dropped());
    }

    @Test
    @Tag("DRV-NET-053")
    void aDeviceThatSaysNothingIsDriven() throws Exception {
        String all =
                NetFeatures.ALL.stream()
                        .mapToObj(bit -> ",without=" + NetFeature.name(bit))
                        .reduce("", String::concat);
        NetDevice card = rig.card("mmio", "loopback:" + all, "net0");
        assertEquals(Features.of(NetFeature.MAC), card.features().and(NetFeatures.EVERY));
        assertTrue(card.linkUp());
        assertEquals(1500, card.mtu());
        try (NetQueue queue = card.openQueue(0)) {
            byte[] frame = Rig.frame(1514, card.macAddress(), card.macAddress(), 1);
            Rig.send(queue, Rig.fill(queue, frame));
            Rig.expect(frame, queue);
        }
    }

    @Test
    @Tag("DRV-NET-002")
    @Tag("DRV-NET-003")
    @Tag("DRV-NET-005")
    @Tag("DRV-NET-006")
    void configurationIsWhatConsumersSee() throws Exception {
        NetDevice card =
                rig.card("mmio", "loopback:,mac=52:54:00:12:34:56,mtu=9000,pairs=2", "net0");
        assertArrayEquals(new byte[] {0x52, 0x54, 0, 0x12, 0x34, 0x56}, card.macAddress());
        assertEquals(9000, card.mtu());
        assertEquals(2, card.queuePairs());
        assertTrue(card.linkUp());
        assertEquals(-1, card.speedMegabits());
    }

    @Test
    @Tag("DRV-NET-008")
    @Tag("DRV-NET-031")
    @Tag("DRV-NET-079")
    void whatCannotBeSentIsRefusedByNumber() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:", "net0");
        try (NetQueue queue = card.openQueue(0)) {
            PacketBuffer[] one = {Rig.fill(queue, new byte[1519])};
            String said =
                    assertThrows(IllegalArgumentException.class, () -> queue.send(one, 1))
                            .getMessage();
            assertEquals("frame 0 of 1519 bytes, limits are 14 and 1518", said);
            one[0].frame(PacketBuffer.HEADROOM, 60);
            one[0].requestChecksum(59, 0);
            assertThrows(IllegalArgumentException.class, () -> queue.send(one, 1));
            one[0].clearOffloads();
            assertEquals(1, queue.send(one, 1));
            assertThrows(IllegalArgumentException.class, () -> queue.send(one, 1));
            assertThrows(IllegalArgumentException.class, () -> queue.free(one, 1));
            assertThrows(VirtioException.class, () -> card.openQueue(0));
        }
        assertThrows(IllegalArgumentException.class, () -> card.openQueue(1));
    }

    @Test
    @Tag("DRV-NET-061")
    @Tag("DEV-NET-025")
    void whatNobodyHasVerifiedIsHandedOnAsItIs() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:", "net0");
        byte[] mac = card.macAddress();
        // The field holds the pseudo header's sum, and nobody is asked to do more.
        byte[] packet = NetFeatures.udp(mac, mac, 333);
        assertFalse(NetFeatures.checksumIsRight(packet));
        try (NetQueue queue = card.openQueue(0)) {
            Rig.send(queue, Rig.fill(queue, packet));
            PacketBuffer got = Rig.receive(queue, 10_000);
            assertFalse(got.needsChecksum());
            assertFalse(got.checksumValid());
            assertArrayEquals(packet, Rig.bytes(got));
        }
        BlockingQueue<byte[]> handled = new LinkedBlockingQueue<>();
        try (FramePort port =
                card.openPort(0, f -> handled.add(f.toArray(ValueLayout.JAVA_BYTE)))) {
            port.send(MemorySegment.ofArray(packet));
            assertArrayEquals(packet, handled.poll(10, TimeUnit.SECONDS));
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    @Tag("DRV-NET-016")
    @Tag("DRV-NET-030")
    @Tag("DRV-NET-033")
    @Tag("DEV-NET-033")
    @Tag("DEV-NET-043")
    @Tag("DEV-NET-044")
    @Tag("DEV-NET-045")
    @Tag("DEV-NET-046")
    void aPartialChecksumArrivesAsTheReceiverWantsIt(boolean offload) throws Exception {
        String without = offload ? "" : ",without=GUEST_CSUM" + NetFeatures.WITHOUT_GUEST;
        NetDevice card = rig.card("mmio", "loopback:" + without, "net0");
        byte[] mac = card.macAddress();
        byte[] packet = NetFeatures.udp(mac, mac, 333);
        try (NetQueue queue = card.openQueue(0)) {
            PacketBuffer frame = Rig.fill(queue, packet);
            frame.requestChecksum(34, 6);
            Rig.send(queue, frame);
            PacketBuffer got = Rig.receive(queue, 10_000);
            assertEquals(offload, got.needsChecksum());
            if (offload) {
                assertEquals(34, got.checksumStart());
                assertEquals(6, got.checksumOffset());
                assertArrayEquals(packet, Rig.bytes(got));
                got.completeChecksum();
            }
            assertFalse(got.needsChecksum());
            assertTrue(NetFeatures.checksumIsRight(Rig.bytes(got)));
        }
    }

    @Test
    @Tag("DRV-NET-016")
    @Tag("DRV-NET-019")
    @Tag("DRV-NET-020")
    @Tag("DRV-NET-021")
    @Tag("DRV-NET-034")
    void aDeviceWithoutChecksumsGetsThemFilledIn() throws Exception {
        NetDevice card =
                rig.card("mmio", "loopback:,without=CSUM" + NetFeatures.WITHOUT_HOST, "net0");
        byte[] mac = card.macAddress();
        try (NetQueue queue = card.openQueue(0)) {
            PacketBuffer frame = Rig.fill(queue, NetFeatures.udp(mac, mac, 334));
            frame.requestChecksum(34, 6);
            Rig.send(queue, frame);
            PacketBuffer got = Rig.receive(queue, 10_000);
            assertFalse(got.needsChecksum());
            assertTrue(NetFeatures.checksumIsRight(Rig.bytes(got)));
            PacketBuffer large = Rig.fill(queue, NetFeatures.udp(mac, mac, 1200));
            large.requestChecksum(34, 6);
            int fragments = 3;
            for (int type :
                    new int[] {
                        NetHeader.GSO_TCPV4, NetHeader.GSO_TCPV6, NetHeader.GSO_UDP_L4, fragments
                    }) {
                large.requestSegmentation(type, 500, 42);
                assertEquals(
                        "frame 0 with segmentation type %d, which the device does not do"
                                .formatted(type),
                        assertThrows(
                                        IllegalArgumentException.class,
                                        () -> queue.send(new PacketBuffer[] {large}, 1))
                                .getMessage());
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    @Tag("DRV-NET-018")
    @Tag("DRV-NET-035")
    @Tag("DRV-NET-036")
    @Tag("DEV-NET-034")
    @Tag("DEV-NET-049")
    @Tag("DEV-NET-050")
    void aLargePacketArrivesWholeOrSegmented(boolean whole) throws Exception {
        String without = whole ? "" : NetFeatures.WITHOUT_GUEST;
        NetDevice card = rig.card("mmio", "loopback:" + without, "net0");
        byte[] mac = card.macAddress();
        byte[] packet = NetFeatures.tcp(mac, mac, 40_000);
        try (NetQueue queue = card.openQueue(0)) {
            PacketBuffer frame = Rig.fill(queue, packet);
            frame.requestChecksum(34, 16);
            frame.requestSegmentation(NetHeader.GSO_TCPV4, 1448, 54);
            Rig.send(queue, frame);
            if (whole) {
                PacketBuffer got = Rig.receive(queue, 10_000);
                assertEquals(NetHeader.GSO_TCPV4, got.gsoType());
                assertEquals(1448, got.gsoSize());
                assertTrue(got.needsChecksum());
                assertArrayEquals(packet, Rig.bytes(got));
                return;
            }
            ByteBuffer payload = ByteBuffer.allocate(40_000);
            int number = 0;
            while (payload.hasRemaining()) {
                PacketBuffer got = Rig.receive(queue, 10_000);
                byte[] bytes = Rig.bytes(got);
                assertEquals(NetHeader.GSO_NONE, got.gsoType());
                assertTrue(NetFeatures.checksumIsRight(bytes));
                ByteBuffer segment = ByteBuffer.wrap(bytes);
                assertEquals(bytes.length - 14, segment.getShort(16) & 0xFFFF);
                assertEquals(1 + 1448 * number++, segment.getInt(38));
                payload.put(bytes, 54, bytes.length - 54);
                // PSH and FIN end up on the last one.
                assertEquals(payload.hasRemaining() ? 0x10 : 0x19, bytes[47] & 0xFF);
                queue.free(new PacketBuffer[] {got}, 1);
            }
            assertEquals(28, number);
            for (int i = 0; i < 40_000; i++) {
                assertEquals(packet[54 + i], payload.get(i));
            }
        }
    }

    @Test
    void aSwitchLearnsWhereCardsAre() throws Exception {
        NetDevice a = rig.card("mmio", "switch:lan", "a");
        NetDevice b = rig.card("vhost-user", "switch:lan", "b");
        NetDevice c = rig.card("mmio", "switch:lan", "c");
        rig.card("mmio", "switch:other", "d");
        try (NetQueue qa = a.openQueue(0);
                NetQueue qb = b.openQueue(0);
                NetQueue qc = c.openQueue(0);
                NetQueue qd = rig.cards.get("d").openQueue(0)) {
            c.receiveModes(Set.of(ReceiveMode.PROMISCUOUS));
            // They have announced themselves: c hears of nothing that is not for it but floods.
            byte[] toB = Rig.frame(100, b.macAddress(), a.macAddress(), 1);
            byte[] all = Rig.frame(101, Rig.BROADCAST, b.macAddress(), 2);
            byte[] back = Rig.frame(102, a.macAddress(), b.macAddress(), 3);
            Rig.send(qb, Rig.fill(qb, all));
            Rig.expect(all, qa);
            Rig.expect(all, qc);
            Rig.send(qa, Rig.fill(qa, toB));
            Rig.expect(toB, qb);
            Rig.send(qb, Rig.fill(qb, back));
            Rig.expect(back, qa);
            assertNull(Rig.receive(qc, 20));
            assertNull(Rig.receive(qd, 20));
        }
    }

    @Test
    @Tag("DRV-NET-068")
    @Tag("DRV-NET-070")
    @Tag("DRV-NET-072")
    @Tag("DEV-NET-069")
    @Tag("DEV-NET-071")
    @Tag("DEV-NET-074")
    @Tag("DEV-NET-077")
    @Tag("DEV-NET-079")
    @Tag("DEV-NET-081")
    @Tag("DEV-NET-082")
    @Tag("DEV-NET-084")
    @Tag("DEV-NET-086")
    void whatIsReceivedCanBeSet() throws Exception {
        NetDevice a = rig.card("mmio", "switch:lan", "a");
        NetDevice b = rig.card("mmio", "switch:lan", "b");
        byte[] other = {2, 0, 0, 0, 0, 9};
        byte[] group = {1, 0, 94, 0, 0, 9};
        byte[] mac = b.macAddress();
        try (NetQueue from = a.openQueue(0);
                NetQueue to = b.openQueue(0)) {
            heard(from, to, mac, true);
            heard(from, to, Rig.BROADCAST, true);
            heard(from, to, other, false);
            heard(from, to, group, false);
            b.filterAddresses(List.of(other), List.of(group));
            heard(from, to, other, true);
            heard(from, to, group, true);
            b.filterAddresses(List.of(), List.of());
            heard(from, to, group, false);
            b.receiveModes(Set.of(ReceiveMode.ALL_MULTICAST, ReceiveMode.ALL_UNICAST));
            heard(from, to, other, true);
            heard(from, to, group, true);
            b.receiveModes(Set.of(ReceiveMode.NO_BROADCAST, ReceiveMode.NO_MULTICAST));
            heard(from, to, Rig.BROADCAST, false);
            heard(from, to, mac, true);
            b.receiveModes(Set.of(ReceiveMode.PROMISCUOUS, ReceiveMode.NO_UNICAST));
            heard(from, to, other, true);
            b.receiveModes(Set.of(ReceiveMode.NO_UNICAST));
            heard(from, to, mac, false);
            assertEquals(Set.of(ReceiveMode.NO_UNICAST), b.receiveModes());
            b.receiveModes(Set.of());
            byte[] tagged = Rig.frame(80, mac, a.macAddress(), 5);
            ByteBuffer.wrap(tagged).putInt(12, 0x8100_0123);
            heard(from, to, tagged, false, true);
            b.addVlan(0x123);
            heard(from, to, tagged, true, true);
            b.removeVlan(0x123);
            heard(from, to, tagged, false, true);
            b.macAddress(other);
            assertArrayEquals(other, b.macAddress());
            heard(from, to, other, true);
            heard(from, to, mac, false);
        }
    }

    @Test
    @Tag("DRV-NET-068")
    @Tag("DRV-NET-069")
    @Tag("DRV-NET-070")
    void whatTheDeviceCannotIsNotAskedOfIt() throws Exception {
        NetDevice some = rig.card("mmio", "switch:lan,without=CTRL_RX_EXTRA", "a");
        some.receiveModes(Set.of(ReceiveMode.PROMISCUOUS, ReceiveMode.ALL_MULTICAST));
        for (ReceiveMode mode :
                new ReceiveMode[] {
                    ReceiveMode.ALL_UNICAST,
                    ReceiveMode.NO_MULTICAST,
                    ReceiveMode.NO_UNICAST,
                    ReceiveMode.NO_BROADCAST
                }) {
            refused("CTRL_RX_EXTRA", () -> some.receiveModes(Set.of(mode)));
        }
        NetDevice none = rig.card("mmio", "switch:lan,without=CTRL_RX,without=CTRL_RX_EXTRA", "b");
        refused("CTRL_RX", () -> none.receiveModes(Set.of(ReceiveMode.PROMISCUOUS)));
        refused("CTRL_RX", () -> none.receiveModes(Set.of(ReceiveMode.ALL_MULTICAST)));
        refused("CTRL_RX", () -> none.filterAddresses(List.of(), List.of()));
    }

    private static void refused(String feature, org.junit.jupiter.api.function.Executable call) {
        String said = assertThrows(VirtioException.class, call).getMessage();
        assertTrue(said.contains(feature), said);
    }

    private int marks;

    private void heard(NetQueue from, NetQueue to, byte[] address, boolean expected)
            throws Exception {
        byte[] source = {2, 0, 0, 0, 0, 1};
        heard(from, to, Rig.frame(70, address, source, 7), expected, true);
    }

    /** Whether a frame passes, told by one behind it that does always. */
    private void heard(NetQueue from, NetQueue to, byte[] frame, boolean expected, boolean whole)
            throws Exception {
        Rig.send(from, Rig.fill(from, frame));
        PacketBuffer got = Rig.receive(to, expected ? 10_000 : 30);
        marks++;
        assertEquals(expected, got != null, "step " + marks);
        if (got != null) {
            assertArrayEquals(frame, Rig.bytes(got));
            to.free(new PacketBuffer[] {got}, 1);
        }
    }

    @Test
    @Tag("DRV-NET-076")
    @Tag("DRV-NET-077")
    @Tag("DRV-NET-079")
    @Tag("DEV-NET-089")
    void flowsSpreadOverSeveralPairs() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,pairs=2", "net0");
        byte[] mac = card.macAddress();
        try (NetQueue first = card.openQueue(0);
                NetQueue second = card.openQueue(1)) {
            for (int flow = 0; flow < 64; flow++) {
                byte[] packet = NetFeatures.udp(mac, mac, 100);
                ByteBuffer.wrap(packet).putShort(34, (short) flow);
                Rig.send(second, Rig.fill(second, packet));
            }
            int got = 0;
            PacketBuffer[] burst = new PacketBuffer[64];
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            while (got < 64 && System.nanoTime() < end) {
                got += first.receive(burst) + second.receive(burst);
            }
        }
        assertThrows(IllegalArgumentException.class, () -> card.openQueue(2));
        List<NetStatistics.Pair> pairs = card.statistics().queues();
        assertEquals(64, pairs.get(0).receivedFrames() + pairs.get(1).receivedFrames());
        assertTrue(pairs.get(0).receivedFrames() > 10, pairs.toString());
        assertTrue(pairs.get(1).receivedFrames() > 10, pairs.toString());
        assertEquals(64, pairs.get(1).sentFrames());
    }

    @Test
    @Tag("DRV-NET-007")
    void aHandlerGetsFinishedFrames() throws Exception {
        NetDevice card = rig.card("vhost-user", "loopback:,mtu=9000", "net0");
        byte[] mac = card.macAddress();
        BlockingQueue<byte[]> got = new LinkedBlockingQueue<>();
        try (FramePort port = card.openPort(0, f -> got.add(f.toArray(ValueLayout.JAVA_BYTE)))) {
            for (int length : new int[] {60, 2048, 2049, 9014}) {
                byte[] frame = Rig.frame(length, mac, mac, length);
                port.send(MemorySegment.ofArray(frame));
                assertArrayEquals(frame, got.poll(10, TimeUnit.SECONDS));
            }
        }
        // The pair is given back.
        card.openQueue(0).close();
    }

    @Test
    @Tag("DEV-NET-087")
    @Tag("DRV-NET-074")
    @Tag("DRV-NET-075")
    void aNewCardAnnouncesItself() throws Exception {
        NetDevice a = rig.card("mmio", "switch:lan", "a");
        try (NetQueue queue = a.openQueue(0)) {
            NetDevice b = rig.card("mmio", "switch:lan", "b");
            PacketBuffer frame = Rig.receive(queue, 10_000);
            assertNotNull(frame);
            ByteBuffer bytes = ByteBuffer.wrap(Rig.bytes(frame));
            assertEquals(0x8035, bytes.getShort(12) & 0xFFFF);
            byte[] from = new byte[6];
            bytes.get(6, from);
            assertArrayEquals(b.macAddress(), from);
        }
    }

    @Test
    @Tag("DRV-NET-088")
    void guestOffloadsCanBeSwitched() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:", "net0");
        byte[] mac = card.macAddress();
        assertTrue(card.guestOffloads().has(NetFeature.GUEST_CSUM));
        assertFalse(card.guestOffloads().has(NetFeature.CSUM));
        card.guestOffloads(Features.NONE);
        assertEquals(Features.NONE, card.guestOffloads());
        try (NetQueue queue = card.openQueue(0)) {
            PacketBuffer frame = Rig.fill(queue, NetFeatures.udp(mac, mac, 333));
            frame.requestChecksum(34, 6);
            Rig.send(queue, frame);
            PacketBuffer got = Rig.receive(queue, 10_000);
            assertFalse(got.needsChecksum());
            assertTrue(NetFeatures.checksumIsRight(Rig.bytes(got)));
        }
        assertThrows(
                IllegalArgumentException.class,
                () -> card.guestOffloads(Features.of(NetFeature.HOST_TSO4)));
        assertThrows(
                VirtioException.class, () -> card.receiveModes(Set.of(ReceiveMode.PROMISCUOUS)));
    }

    @Test
    void theChecksumIsThatOfTheStandard() {
        // RFC 1071, 3.
        byte[] bytes = {0, 1, (byte) 0xF2, 3, (byte) 0xF4, (byte) 0xF5, (byte) 0xF6, (byte) 0xF7};
        long sum = InternetChecksum.sum(MemorySegment.ofArray(bytes), 0, 8, 0);
        assertEquals(0xDDF2, InternetChecksum.fold(sum));
        assertEquals(0x220D, InternetChecksum.complement(sum));
    }
}
