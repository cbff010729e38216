package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.InetAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** Segments byte by byte, each built anew by the test. */
class SegmentationTest {
    private static final Packets.Ends V4 = ends("10.0.0.1", "10.0.0.2");
    private static final Packets.Ends V6 = ends("2001:db8::1", "2001:db8::2");
    private static final byte[] NOTHING = {};
    private static final int ACK = 0x10;
    private static final int PSH_FIN = 0x09;
    private static final int CWR = 0x80;
    private static final int ECE = 0x40;

    private static Packets.Ends ends(String source, String destination) {
        return new Packets.Ends(address(source), address(destination), 4001, 4002);
    }

    private static byte[] address(String text) {
        try {
            return InetAddress.getByName(text).getAddress();
        } catch (java.net.UnknownHostException e) {
            throw new AssertionError(e);
        }
    }

    private static byte[] payload(int bytes) {
        byte[] payload = new byte[bytes];
        new Random(bytes).nextBytes(payload);
        return payload;
    }

    /** A frame with its header, as a driver sends it. */
    private static Frame frame(byte[] bytes, int gso, int size, int start, int offset) {
        ByteBuffer header = ByteBuffer.allocate(Frame.HEADER).order(ByteOrder.LITTLE_ENDIAN);
        header.put((byte) NetHeader.F_NEEDS_CSUM).put((byte) gso).putShort((short) 0);
        header.putShort((short) size).putShort((short) start).putShort((short) offset);
        Frame frame = new Frame();
        frame.length = bytes.length;
        MemorySegment.copy(header.array(), 0, frame.memory, ValueLayout.JAVA_BYTE, 0, Frame.HEADER);
        MemorySegment.copy(
                bytes, 0, frame.memory, ValueLayout.JAVA_BYTE, Frame.HEADER, bytes.length);
        return frame;
    }

    private static List<byte[]> split(Frame frame) {
        assertNull(frame.bad());
        List<byte[]> segments = new ArrayList<>();
        new Segmentation()
                .split(
                        frame,
                        segment -> {
                            assertEquals(0, segment.flags());
                            assertEquals(NetHeader.GSO_NONE, segment.gsoType());
                            assertEquals(1, segment.header16(NetHeader.NUM_BUFFERS));
                            segments.add(
                                    segment.memory
                                            .asSlice(Frame.HEADER, segment.length)
                                            .toArray(ValueLayout.JAVA_BYTE));
                        });
        return segments;
    }

    private static void same(List<byte[]> expected, List<byte[]> segments) {
        assertEquals(expected.size(), segments.size());
        for (int i = 0; i < expected.size(); i++) {
            assertArrayEquals(expected.get(i), segments.get(i), "segment " + i);
        }
    }

    private static List<byte[]> pieces(byte[] payload, int size) {
        List<byte[]> pieces = new ArrayList<>();
        int at = 0;
        do {
            pieces.add(Arrays.copyOfRange(payload, at, Math.min(payload.length, at + size)));
            at += size;
        } while (at < payload.length);
        return pieces;
    }

    @ParameterizedTest
    @CsvSource({
        "-1, 10000, 1448",
        "-1, 9999, 1447",
        "100, 1448, 1448",
        "5, 1449, 1448",
        "-1, 100, 1",
        "-1, 0, 1448",
        "-1, 65000, 65000",
        "7, 65001, 999"
    })
    @Tag("DEV-NET-034")
    @Tag("DEV-NET-036")
    void tcp(int vlan, int bytes, int size) {
        byte[] payload = payload(bytes);
        int network = vlan < 0 ? 14 : 18;
        int flags = ACK | PSH_FIN;
        for (boolean v4 : new boolean[] {true, false}) {
            Packets.Ends ends = v4 ? V4 : V6;
            byte[] whole = Packets.partial(ends, Packets.TCP, Packets.tcp(ends, 5, flags, payload));
            byte[] packet =
                    v4
                            ? Packets.ipv4(V4, 0xFFFE, 0x4000, NOTHING, Packets.TCP, whole)
                            : Packets.ipv6(V6, Packets.TCP, NOTHING, whole);
            List<byte[]> expected = new ArrayList<>();
            int at = 0;
            for (byte[] piece : pieces(payload, size)) {
                boolean last = at + piece.length == bytes;
                byte[] tcp = Packets.tcp(ends, 5 + at, last ? flags : ACK, piece);
                int id = 0xFFFE + expected.size();
                byte[] segment =
                        v4
                                ? Packets.ipv4(V4, id, 0x4000, NOTHING, Packets.TCP, tcp)
                                : Packets.ipv6(V6, Packets.TCP, NOTHING, tcp);
                expected.add(Packets.frame(vlan, v4, segment));
                at += piece.length;
            }
            int type = v4 ? NetHeader.GSO_TCPV4 : NetHeader.GSO_TCPV6;
            int start = network + (v4 ? 20 : 40);
            same(expected, split(frame(Packets.frame(vlan, v4, packet), type, size, start, 16)));
        }
    }

    @ParameterizedTest
    @CsvSource({"10000, 1472", "9999, 1471", "1473, 1472", "3, 1", "0, 500", "65000, 32767"})
    @Tag("DEV-NET-037")
    void udp(int bytes, int size) {
        byte[] payload = payload(bytes);
        byte[] options = {1, 1, 1, 0};
        for (boolean v4 : new boolean[] {true, false}) {
            Packets.Ends ends = v4 ? V4 : V6;
            byte[] whole = Packets.partial(ends, Packets.UDP, Packets.udp(ends, payload));
            byte[] packet =
                    v4
                            ? Packets.ipv4(V4, 9, 0, options, Packets.UDP, whole)
                            : Packets.ipv6(V6, Packets.UDP, NOTHING, whole);
            List<byte[]> expected = new ArrayList<>();
            for (byte[] piece : pieces(payload, size)) {
                byte[] udp = Packets.udp(ends, piece);
                int id = 9 + expected.size();
                byte[] segment =
                        v4
                                ? Packets.ipv4(V4, id, 0, options, Packets.UDP, udp)
                                : Packets.ipv6(V6, Packets.UDP, NOTHING, udp);
                expected.add(Packets.frame(-1, v4, segment));
            }
            int start = 14 + (v4 ? 24 : 40);
            same(
                    expected,
                    split(
                            frame(
                                    Packets.frame(-1, v4, packet),
                                    NetHeader.GSO_UDP_L4,
                                    size,
                                    start,
                                    6)));
        }
    }

    /** Extension headers are in each segment, and the checksum is for the address they lead to. */
    @ParameterizedTest
    @ValueSource(ints = {Packets.TCP, Packets.UDP})
    void extensionHeaders(int protocol) {
        byte[] home = address("2001:db8::99");
        ByteBuffer extensions = ByteBuffer.allocate(8 + 24);
        // Hop-by-hop options, padded; a routing header of type 2 with one segment left.
        extensions.put((byte) 43).put((byte) 0).put(new byte[] {1, 4, 0, 0, 0, 0});
        extensions.put((byte) protocol).put((byte) 2).put((byte) 2).put((byte) 1).putInt(0);
        extensions.put(home);
        Packets.Ends ends = new Packets.Ends(V6.source(), home, 4001, 4002);
        byte[] payload = payload(3001);
        boolean tcp = protocol == Packets.TCP;
        byte[] upper = tcp ? Packets.tcp(ends, 1, ACK, payload) : Packets.udp(ends, payload);
        byte[] partial = Packets.partial(ends, protocol, upper);
        byte[] whole = Packets.ipv6(V6, 0, extensions.array(), partial);
        List<byte[]> expected = new ArrayList<>();
        int at = 0;
        for (byte[] piece : pieces(payload, 1001)) {
            byte[] part = tcp ? Packets.tcp(ends, 1 + at, ACK, piece) : Packets.udp(ends, piece);
            expected.add(Packets.frame(-1, false, Packets.ipv6(V6, 0, extensions.array(), part)));
            at += piece.length;
        }
        int type = tcp ? NetHeader.GSO_TCPV6 : NetHeader.GSO_UDP_L4;
        int start = 14 + 40 + extensions.capacity();
        same(
                expected,
                split(frame(Packets.frame(-1, false, whole), type, 1001, start, tcp ? 16 : 6)));
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void theReducedWindowIsReportedOnce(boolean marked) {
        byte[] payload = payload(300);
        int flags = ACK | CWR | ECE;
        byte[] whole = Packets.partial(V6, Packets.TCP, Packets.tcp(V6, 1, flags, payload));
        List<byte[]> expected = new ArrayList<>();
        int at = 0;
        for (byte[] piece : pieces(payload, 100)) {
            byte[] tcp = Packets.tcp(V6, 1 + at, at == 0 ? flags : ACK | ECE, piece);
            expected.add(Packets.frame(-1, false, Packets.ipv6(V6, Packets.TCP, NOTHING, tcp)));
            at += piece.length;
        }
        byte[] packet = Packets.frame(-1, false, Packets.ipv6(V6, Packets.TCP, NOTHING, whole));
        int type = NetHeader.GSO_TCPV6 | (marked ? NetHeader.GSO_ECN : 0);
        same(expected, split(frame(packet, type, 100, 54, 16)));
    }

    @Test
    @Tag("DEV-NET-015")
    @Tag("DEV-NET-021")
    @Tag("DEV-NET-052")
    @Tag("DEV-NET-053")
    void whatTheDriverSaysBesidesGoesNoFurther() {
        byte[] whole = Packets.partial(V6, Packets.TCP, Packets.tcp(V6, 1, ACK, payload(300)));
        byte[] packet = Packets.frame(-1, false, Packets.ipv6(V6, Packets.TCP, NOTHING, whole));
        Frame frame = frame(packet, NetHeader.GSO_TCPV6, 100, 54, 16);
        frame.memory.set(ValueLayout.JAVA_BYTE, NetHeader.FLAGS, (byte) 0xFD);
        frame.memory.set(ValueLayout.JAVA_SHORT_UNALIGNED, NetHeader.HDR_LEN, (short) 7);
        frame.memory.set(ValueLayout.JAVA_SHORT_UNALIGNED, NetHeader.NUM_BUFFERS, (short) 7);
        assertNull(frame.bad());
        assertEquals(NetHeader.F_NEEDS_CSUM, frame.flags());
        assertEquals(54 + 32, frame.header16(NetHeader.HDR_LEN));
        assertEquals(1, frame.header16(NetHeader.NUM_BUFFERS));
    }

    @Test
    @Tag("DEV-NET-022")
    @Tag("DEV-NET-024")
    void whatCannotBeSegmentedIsRefusedByName() {
        byte[] whole = Packets.partial(V6, Packets.TCP, Packets.tcp(V6, 1, ACK, payload(300)));
        byte[] packet = Packets.frame(-1, false, Packets.ipv6(V6, Packets.TCP, NOTHING, whole));
        int[][] wrong = {
            {NetHeader.GSO_TCPV4, 100, 54, 16}, // not IPv4
            {NetHeader.GSO_TCPV6, 0, 54, 16}, // into nothing
            {NetHeader.GSO_TCPV6, 100, 53, 16}, // within the network header
            {NetHeader.GSO_TCPV6, 100, 54, 14}, // a checksum where TCP has none
            {NetHeader.GSO_TCPV6, 100, packet.length - 19, 16}, // no room for the header
            {NetHeader.GSO_TCPV6 | 0x20, 100, 54, 16}, // in a tunnel
            {NetHeader.GSO_TCPV6 | 0x60, 100, 54, 16}, // in two
            {3, 100, 54, 16}, // UDP fragments
        };
        for (int[] w : wrong) {
            assertNotNull(frame(packet, w[0], w[1], w[2], w[3]).bad(), Arrays.toString(w));
        }
    }

    @Test
    @Tag("DEV-NET-005")
    void segmentsThatTheReceiverCannotTakeAreDropped() throws Exception {
        int[] whole = {
            NetFeature.GUEST_TSO4,
            NetFeature.GUEST_TSO6,
            NetFeature.GUEST_ECN,
            NetFeature.GUEST_USO4,
            NetFeature.GUEST_USO6
        };
        try (FakeCard card = new FakeCard("x,mtu=1500", whole)) {
            byte[] udp = Packets.partial(V4, Packets.UDP, Packets.udp(V4, payload(4000)));
            byte[] packet = Packets.frame(-1, true, Packets.ipv4(V4, 1, 0, NOTHING, 17, udp));
            ByteBuffer header = FakeCard.data(card.headerBytes);
            header.put((byte) 1).put((byte) NetHeader.GSO_UDP_L4).putShort((short) 42);
            header.putShort((short) 3000).putShort((short) 34).putShort((short) 6);
            card.send(header.array(), packet);
            // The second one of 1000 bytes fits.
            FakeCard.Received got = card.received();
            assertEquals(42 + 1000, got.frame().length);
            assertEquals(1, card.backend.dropped.sum());
            assertTrue(card.backend.bad.sum() == 0);
        }
    }
}
