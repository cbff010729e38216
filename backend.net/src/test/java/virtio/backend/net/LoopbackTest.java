package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** The device in software, its queues driven by hand: a card that receives what it sends. */
class LoopbackTest {
    private static final int HEADER = NetHeader.BYTES;

    private NetBackend card;
    private FakeQueue receive;
    private FakeQueue transmit;

    private void start(String spec, int... without) throws VirtioException {
        card = (NetBackend) new LoopbackProvider().open(spec);
        Features features = card.offered().without(NetFeature.HASH_REPORT);
        for (int feature : without) {
            features = features.without(feature);
        }
        card.accepted(features);
        receive = new FakeQueue(card, 0);
        transmit = new FakeQueue(card, 1);
    }

    /** A header of zeroes but for what is asked for, and random bytes behind it. */
    private static byte[] packet(int length, int flags, int gso, int start, int offset) {
        byte[] bytes = new byte[HEADER + length];
        new Random(length).nextBytes(bytes);
        ByteBuffer b = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        b.putLong(0, 0).putInt(8, 0);
        b.put(NetHeader.FLAGS, (byte) flags).put(NetHeader.GSO_TYPE, (byte) gso);
        b.putShort(NetHeader.CSUM_START, (short) start);
        b.putShort(NetHeader.CSUM_OFFSET, (short) offset);
        return bytes;
    }

    private static byte[] plain(int length) {
        return packet(length, 0, 0, 0, 0);
    }

    /** Gives the device a packet to send, and gets its buffer back. */
    private void send(byte[] packet) throws Exception {
        FakeQueue.Buffer buffer = transmit.add(packet, 0);
        transmit.serve();
        assertEquals(0, buffer.written, "used, with nothing written");
        if (receive.scheduled.tryAcquire()) {
            receive.serve();
        }
    }

    private static int buffers(byte[] received) {
        return ByteBuffer.wrap(received)
                .order(ByteOrder.LITTLE_ENDIAN)
                .getShort(NetHeader.NUM_BUFFERS);
    }

    private static byte[] frame(byte[] packet) {
        return Arrays.copyOfRange(packet, HEADER, packet.length);
    }

    private long dropped() {
        return card.dropped.sum();
    }

    private long bad() {
        return card.bad.sum();
    }

    @Test
    @Tag("DEV-NET-028")
    @Tag("DEV-NET-029")
    void withoutMergingAFrameTakesOneBuffer() throws Exception {
        start("", NetFeature.MRG_RXBUF);
        FakeQueue.Buffer buffer = receive.add(new byte[0], 1526);
        byte[] packet = plain(1514);
        send(packet);
        assertArrayEquals(frame(packet), frame(buffer.bytes()));
        assertEquals(1, buffers(buffer.bytes()));
        // One that is too small is not spread over two: the frame is dropped, the buffer kept.
        FakeQueue.Buffer small = receive.add(new byte[0], 100);
        receive.add(new byte[0], 1526);
        send(packet);
        assertEquals(-1, small.written);
        assertEquals(1, dropped());
        send(plain(60));
        assertArrayEquals(frame(plain(60)), frame(small.bytes()));
    }

    @Test
    @Tag("DEV-NET-027")
    @Tag("DEV-NET-030")
    @Tag("DEV-NET-031")
    @Tag("DEV-NET-032")
    void aMergedFrameFillsAllBuffersButTheLastAndUsesThemTogether() throws Exception {
        start(",mtu=9000");
        List<FakeQueue.Buffer> buffers = new ArrayList<>();
        for (int room : new int[] {12, 1526, 700, 4096, 1024, 4096}) {
            buffers.add(receive.add(new byte[0], room));
        }
        byte[] packet = plain(9014);
        send(packet);
        assertEquals(List.of(6), receive.turns);
        ByteBuffer whole = ByteBuffer.allocate(packet.length);
        for (int i = 0; i < 6; i++) {
            FakeQueue.Buffer buffer = buffers.get(i);
            assertTrue(i == 5 || buffer.written == buffer.in.length, "buffer " + i + " is full");
            whole.put(buffer.bytes());
        }
        assertEquals(6, buffers(whole.array()));
        assertArrayEquals(frame(packet), frame(whole.array()));
    }

    @Test
    @Tag("DEV-NET-033")
    @Tag("DEV-NET-025")
    @Tag("DEV-NET-054")
    void aFrameSaysNothingThatWasNotAskedFor() throws Exception {
        start("", NetFeature.GUEST_CSUM);
        FakeQueue.Buffer buffer = receive.add(new byte[0], 1526);
        send(packet(100, NetHeader.F_NEEDS_CSUM, 0, 34, 6));
        byte[] header = Arrays.copyOf(buffer.bytes(), HEADER - 2);
        assertArrayEquals(new byte[HEADER - 2], header);
    }

    @Test
    @Tag("DEV-NET-015")
    @Tag("DEV-NET-016")
    @Tag("DEV-NET-017")
    @Tag("DEV-NET-018")
    @Tag("DEV-NET-052")
    void whatMeansNothingIsNotLookedAtAndNotPassedOn() throws Exception {
        start("");
        FakeQueue.Buffer buffer = receive.add(new byte[0], 1526);
        // Unknown flags, and a checksum far beyond the frame that nobody asked for.
        byte[] packet = packet(100, 0xFF & ~NetHeader.F_NEEDS_CSUM, 0, 60_000, 60_000);
        send(packet);
        assertEquals(0, bad());
        assertArrayEquals(new byte[HEADER - 2], Arrays.copyOf(buffer.bytes(), HEADER - 2));
        assertArrayEquals(frame(packet), frame(buffer.bytes()));
    }

    @Test
    void framesThatAreWrongAreDroppedAndCounted() throws Exception {
        start("");
        receive.add(new byte[0], 1 << 17);
        byte[][] wrong = {
            new byte[0],
            new byte[HEADER],
            new byte[HEADER - 1],
            plain(13),
            new byte[HEADER + NetHeader.MAX_FRAME_BYTES + 1],
            packet(100, NetHeader.F_NEEDS_CSUM, 0, 99, 0),
            packet(100, NetHeader.F_NEEDS_CSUM, 0, 0xFFFF, 0xFFFF),
            packet(100, 0, NetHeader.GSO_TCPV4, 0, 0),
            packet(100, NetHeader.F_NEEDS_CSUM, 77, 34, 16),
            packet(100, NetHeader.F_NEEDS_CSUM, NetHeader.GSO_TCPV4, 34, 16),
        };
        for (byte[] packet : wrong) {
            send(packet);
        }
        assertEquals(wrong.length, bad());
        assertEquals(1, receive.available.size(), "nothing came through");
        send(plain(60));
        assertEquals(List.of(1), receive.turns);
    }

    @Test
    @Tag("DEV-NET-040")
    void congestionIsMarkedWhereTheDriverKnowsIt() throws Exception {
        Packets.Ends ends =
                new Packets.Ends(new byte[] {10, 0, 0, 1}, new byte[] {10, 0, 0, 2}, 1000, 2000);
        // The congestion window was reduced (RFC 3168 6.1.2).
        byte[] tcp = Packets.tcp(ends, 1, 0x90, new byte[3000]);
        tcp = Packets.partial(ends, Packets.TCP, tcp);
        byte[] ip = Packets.ipv4(ends, 1, 0x4000, new byte[0], Packets.TCP, tcp);
        byte[] frame = Packets.frame(-1, true, ip);
        byte[] packet = new byte[HEADER + frame.length];
        System.arraycopy(frame, 0, packet, HEADER, frame.length);
        ByteBuffer.wrap(packet)
                .order(ByteOrder.LITTLE_ENDIAN)
                .put((byte) NetHeader.F_NEEDS_CSUM)
                .put((byte) (NetHeader.GSO_TCPV4 | NetHeader.GSO_ECN))
                .putShort((short) 66)
                .putShort((short) 1448)
                .putShort((short) 34)
                .putShort((short) 16);
        start("");
        FakeQueue.Buffer whole = receive.add(new byte[0], 4096);
        send(packet);
        assertEquals(
                NetHeader.GSO_TCPV4 | NetHeader.GSO_ECN, whole.bytes()[NetHeader.GSO_TYPE] & 0xFF);
        start("", NetFeature.GUEST_ECN);
        List<FakeQueue.Buffer> segments = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            segments.add(receive.add(new byte[0], 4096));
        }
        send(packet);
        assertEquals(3, receive.turns.size());
        for (FakeQueue.Buffer segment : segments.subList(0, 3)) {
            assertEquals(NetHeader.GSO_NONE, segment.bytes()[NetHeader.GSO_TYPE]);
        }
    }

    @Test
    @Tag("DEV-NET-005")
    @Tag("DEV-NET-006")
    void framesUpToTheMtuPassAndLargerOnesDoNot() throws Exception {
        start(",mtu=1280");
        FakeQueue.Buffer buffer = receive.add(new byte[0], 4096);
        send(plain(1280 + NetConfig.ETHERNET_BYTES));
        assertEquals(HEADER + 1280 + NetConfig.ETHERNET_BYTES, buffer.written);
        FakeQueue.Buffer next = receive.add(new byte[0], 4096);
        send(plain(1280 + NetConfig.ETHERNET_BYTES + 1));
        assertEquals(1, dropped());
        byte[] tagged = plain(1280 + NetConfig.ETHERNET_BYTES + NetConfig.VLAN_BYTES);
        ByteBuffer.wrap(tagged).putShort(HEADER + 12, (short) 0x8100);
        send(tagged);
        assertEquals(tagged.length, next.written);
    }

    @Test
    @Tag("DEV-NET-001")
    @Tag("DEV-NET-002")
    @Tag("DEV-NET-003")
    @Tag("DEV-NET-004")
    @Tag("DEV-NET-014")
    void theConfigurationIsWithinItsLimitsAndStaysSo() throws Exception {
        start(",mtu=68,pairs=64");
        byte[] before = config();
        ByteBuffer c = ByteBuffer.wrap(before).order(ByteOrder.LITTLE_ENDIAN);
        assertEquals(64, c.getShort(NetConfig.MAX_VIRTQUEUE_PAIRS));
        assertEquals(68, c.getShort(NetConfig.MTU));
        card.writeConfig(NetConfig.MTU, new byte[] {1, 1});
        assertArrayEquals(before, config());
        start("");
        assertEquals(
                1500,
                ByteBuffer.wrap(config()).order(ByteOrder.LITTLE_ENDIAN).getShort(NetConfig.MTU));
        assertTrue(
                !card.offered().has(NetFeature.CTRL_RX_EXTRA)
                        || card.offered().has(NetFeature.CTRL_VQ));
        for (String wrong : new String[] {",mtu=67", ",mtu=65536", ",pairs=0", ",pairs=65"}) {
            assertThrows(VirtioException.class, () -> new LoopbackProvider().open(wrong));
        }
    }

    private byte[] config() {
        byte[] bytes = new byte[card.configSize()];
        card.readConfig(0, bytes);
        return bytes;
    }

    @Test
    @Tag("DEV-NET-091")
    void framesWaitForBuffersAndAreDroppedWhenThereIsNoRoomLeft() throws Exception {
        start("");
        for (int i = 0; i < 2000; i++) {
            send(plain(1514));
        }
        long lost = dropped();
        assertTrue(lost > 0 && lost < 2000, lost + " dropped");
        int received = 0;
        for (FakeQueue.Buffer b = receive.add(new byte[0], 1526); ; ) {
            receive.serve();
            if (b.written < 0) {
                break;
            }
            received++;
            b = receive.add(new byte[0], 1526);
        }
        assertEquals(2000, received + lost);
        // Without its queue the frame goes nowhere, and the device goes on.
        card.queueStopped(receive);
        send(plain(60));
        assertEquals(lost + 1, dropped());
    }
}
