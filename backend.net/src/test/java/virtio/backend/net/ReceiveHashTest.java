package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.net.HashType;

import java.lang.foreign.MemorySegment;
import java.net.InetAddress;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;
import java.util.Set;

/** Toeplitz hashes of frames, held against published ones. */
class ReceiveHashTest {
    /** Of Microsoft's "Verifying the RSS Hash Calculation", as the numbers below. */
    static final byte[] KEY =
            HexFormat.of()
                    .parseHex(
                            "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b4"
                                    + "77cb2da38030f20c6a42b73bbeac01fa");

    private static final byte[] NOTHING = {};
    private static final int ALL = ReceiveHash.TYPES;
    private static final Packets.Ends V4 = ends("66.9.149.187", 2794, "161.142.100.80", 1766);
    private static final int V4_ADDRESSES = 0x323e8fc2;
    private static final int V4_PORTS = 0x51ccc178;
    private static final Packets.Ends V6 =
            ends("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766);
    private static final int V6_ADDRESSES = 0x2cc18cd5;
    private static final int V6_PORTS = 0x40207d3d;

    private static Packets.Ends ends(String source, int from, String destination, int to) {
        return new Packets.Ends(address(source), address(destination), from, to);
    }

    private static byte[] address(String text) {
        try {
            return InetAddress.getByName(text).getAddress();
        } catch (java.net.UnknownHostException e) {
            throw new AssertionError(e);
        }
    }

    private static ReceiveHash hash(int types) {
        return new ReceiveHash(types, KEY, new int[0], 0);
    }

    private static Frame frame(byte[] bytes) {
        Frame frame = new Frame();
        frame.length = bytes.length;
        frame.memory.asSlice(Frame.HEADER, bytes.length).copyFrom(MemorySegment.ofArray(bytes));
        return frame;
    }

    private static void expect(HashType type, int value, long hash) {
        assertEquals(type, HashType.ofReport(ReceiveHash.report(hash)));
        assertEquals(Integer.toHexString(value), Integer.toHexString((int) hash));
    }

    private static void none(long hash) {
        assertEquals(ReceiveHash.NONE, hash);
    }

    private static int mask(HashType... types) {
        return HashType.mask(Set.of(types));
    }

    @ParameterizedTest
    @CsvSource({
        "161.142.100.80, 1766, 66.9.149.187, 2794, 323e8fc2, 51ccc178",
        "65.69.140.83, 4739, 199.92.111.2, 14230, d718262a, c626b0ea",
        "12.22.207.184, 38024, 24.19.198.95, 12898, d2d0a5de, 5c2b394a",
        "209.142.163.6, 2217, 38.27.205.30, 48228, 82989176, afc7327f",
        "202.188.127.2, 1303, 153.39.163.191, 44251, 5d1809c5, 10e828a2",
        "3ffe:2501:200:3::1, 1766, 3ffe:2501:200:1fff::7, 2794, 2cc18cd5, 40207d3d",
        "ff02::1, 4739, 3ffe:501:8::260:97ff:fe40:efab, 14230, 0f0c461c, dde51bbf",
        "fe80::200:f8ff:fe21:67cf, 38024, 3ffe:1900:4545:3:200:f8ff:fe21:67cf, 44251, 4b61e985,"
                + " 02d1feef",
    })
    @Tag("DEV-NET-092")
    void publishedHashes(
            String destination, int to, String source, int from, String addresses, String ports) {
        Packets.Ends ends = ends(source, from, destination, to);
        boolean v4 = ends.v4();
        byte[] tcp = Packets.tcp(ends, 1, 16, new byte[3]);
        byte[] udp = Packets.udp(ends, new byte[5]);
        for (int vlan : new int[] {-1, 7}) {
            Frame t =
                    frame(
                            Packets.frame(
                                    vlan,
                                    v4,
                                    v4
                                            ? Packets.ipv4(ends, 1, 0, NOTHING, 6, tcp)
                                            : Packets.ipv6(ends, 6, NOTHING, tcp)));
            Frame u =
                    frame(
                            Packets.frame(
                                    vlan,
                                    v4,
                                    v4
                                            ? Packets.ipv4(ends, 1, 0, new byte[8], 17, udp)
                                            : Packets.ipv6(ends, 17, NOTHING, udp)));
            HashType addressType = v4 ? HashType.IPV4 : HashType.IPV6;
            HashType tcpType = v4 ? HashType.TCPV4 : HashType.TCPV6;
            HashType udpType = v4 ? HashType.UDPV4 : HashType.UDPV6;
            int two = Integer.parseUnsignedInt(addresses, 16);
            int four = Integer.parseUnsignedInt(ports, 16);
            expect(tcpType, four, hash(ALL).of(t));
            expect(udpType, four, hash(ALL).of(u));
            expect(addressType, two, hash(mask(addressType)).of(t));
            expect(addressType, two, hash(mask(addressType, tcpType)).of(u));
            expect(udpType, four, hash(mask(udpType)).of(u));
            none(hash(mask(tcpType)).of(u));
            none(hash(ALL & ~mask(tcpType, addressType)).of(t));
            none(hash(0).of(t));
        }
    }

    @Test
    void fragmentsAreHashedByTheirAddresses() {
        byte[] udp = Packets.udp(V4, new byte[64]);
        for (int fragment : new int[] {0x2000, 0x2005, 0x0005}) {
            byte[] packet = Packets.ipv4(V4, 1, fragment, NOTHING, 17, udp);
            expect(
                    HashType.IPV4,
                    V4_ADDRESSES,
                    hash(ALL).of(frame(Packets.frame(-1, true, packet))));
        }
        byte[] whole = Packets.ipv4(V4, 1, 0x4000, NOTHING, 17, udp);
        expect(HashType.UDPV4, V4_PORTS, hash(ALL).of(frame(Packets.frame(-1, true, whole))));
        for (int fragment : new int[] {0x0001, 0x0101, 0x0100, 0}) {
            byte[] header =
                    ByteBuffer.allocate(8)
                            .put((byte) 17)
                            .put((byte) 0)
                            .putShort((short) fragment)
                            .putInt(99)
                            .array();
            byte[] packet = Packets.ipv6(V6, 44, header, Packets.udp(V6, new byte[64]));
            Frame f = frame(Packets.frame(-1, false, packet));
            boolean part = fragment != 0;
            expect(
                    part ? HashType.IP_EX : HashType.UDP_EX,
                    part ? V6_ADDRESSES : V6_PORTS,
                    hash(ALL).of(f));
        }
    }

    @Test
    void extensionHeadersAreLookedThrough() {
        ByteBuffer extensions = ByteBuffer.allocate(8 + 16);
        extensions.put((byte) 60).put((byte) 0).put(new byte[] {5, 2, 0, 0, 1, 0});
        extensions.put((byte) 6).put((byte) 1).put(new byte[] {0, 1, 11}).put(new byte[11]);
        byte[] packet = Packets.ipv6(V6, 0, extensions.array(), Packets.tcp(V6, 1, 16, NOTHING));
        Frame f = frame(Packets.frame(-1, false, packet));
        expect(HashType.TCP_EX, V6_PORTS, hash(ALL).of(f));
        expect(HashType.IP_EX, V6_ADDRESSES, hash(ALL & ~mask(HashType.TCP_EX)).of(f));
        int plain = mask(HashType.TCPV6, HashType.IPV6);
        expect(HashType.TCPV6, V6_PORTS, hash(plain).of(f));
        expect(HashType.IPV6, V6_ADDRESSES, hash(mask(HashType.IPV6, HashType.UDP_EX)).of(f));
        none(hash(mask(HashType.UDP_EX)).of(f));
    }

    @Test
    void mobileNodesAreHashedByTheirHomeAddresses() {
        // The addresses that count are in the extension headers, others in the header.
        Packets.Ends care = ends("2001:db8::a", 2794, "2001:db8::b", 1766);
        ByteBuffer extensions = ByteBuffer.allocate(24 + 24);
        extensions.put((byte) 60).put((byte) 2).put((byte) 2).put((byte) 1).putInt(0);
        extensions.put(V6.destination());
        extensions.put((byte) 17).put((byte) 2).put(new byte[] {1, 2, 0, 0});
        extensions.put((byte) 0xC9).put((byte) 16).put(V6.source());
        byte[] packet = Packets.ipv6(care, 43, extensions.array(), Packets.udp(V6, new byte[9]));
        Frame f = frame(Packets.frame(-1, false, packet));
        expect(HashType.UDP_EX, V6_PORTS, hash(ALL).of(f));
        expect(HashType.IP_EX, V6_ADDRESSES, hash(mask(HashType.IP_EX)).of(f));
        long outer = hash(mask(HashType.UDPV6)).of(f);
        assertEquals(reference(KEY, care, true), (int) outer);
    }

    @Test
    void whatIsNoPacketHasNoHash() {
        none(hash(ALL).of(frame(new byte[14])));
        byte[] arp = new byte[60];
        ByteBuffer.wrap(arp).putShort(12, (short) 0x0806).put(14, (byte) 0x45);
        none(hash(ALL).of(frame(arp)));
        byte[] wrong = Packets.frame(-1, true, Packets.ipv6(V6, 6, NOTHING, new byte[20]));
        none(hash(ALL).of(frame(wrong)));
    }

    /** A header that is cut off counts as not there, wherever it is cut. */
    @Test
    void whatIsCutOffIsNotRead() {
        byte[] tcp = Packets.tcp(V4, 1, 16, NOTHING);
        byte[] v4 = Packets.frame(-1, true, Packets.ipv4(V4, 1, 0, NOTHING, 6, tcp));
        for (int length = 14; length <= v4.length; length++) {
            Frame f = frame(v4);
            f.length = length;
            long hash = hash(ALL).of(f);
            if (length < 34) {
                none(hash);
            } else if (length < 54) {
                expect(HashType.IPV4, V4_ADDRESSES, hash);
            } else {
                expect(HashType.TCPV4, V4_PORTS, hash);
            }
        }
        byte[] chain = new byte[2000];
        byte[] v6 = Packets.frame(-1, false, Packets.ipv6(V6, 0, chain, NOTHING));
        expect(HashType.IP_EX, V6_ADDRESSES, hash(ALL).of(frame(v6)));
        for (int length = 54; length < 74; length++) {
            Frame f = frame(v6);
            f.length = length;
            expect(HashType.IP_EX, V6_ADDRESSES, hash(ALL).of(f));
        }
    }

    /** Whatever a frame holds, only the frame is read: what lies behind it changes nothing. */
    @Test
    void nothingBehindTheFrameMatters() {
        Random random = new Random(11);
        ReceiveHash hash = hash(ALL);
        Frame f = new Frame();
        byte[] bytes = new byte[200];
        byte[] likely = {0, 43, 44, 60, 6, 17};
        for (int i = 0; i < 200_000; i++) {
            random.nextBytes(bytes);
            boolean v4 = random.nextInt(4) == 0;
            ByteBuffer.wrap(bytes).putShort(12, (short) (v4 ? 0x0800 : 0x86DD));
            bytes[14] = (byte) (v4 ? 0x40 | random.nextInt(16) : 0x60);
            for (int at = 20; at < 120; at += 1 + random.nextInt(8)) {
                bytes[at] = likely[random.nextInt(likely.length)];
            }
            f.length = 14 + random.nextInt(180);
            f.memory.asSlice(Frame.HEADER, bytes.length).copyFrom(MemorySegment.ofArray(bytes));
            long before = hash.of(f);
            f.memory.asSlice(Frame.HEADER + f.length, 2200).fill((byte) ~i);
            assertEquals(before, hash.of(f));
        }
    }

    @Test
    void aTableSaysWhichPairGetsIt() {
        ReceiveHash hash = new ReceiveHash(ALL, KEY, new int[] {0, 1, 2, 3}, 5);
        assertEquals(V4_PORTS & 3, hash.pair((long) 2 << 32 | V4_PORTS & 0xFFFF_FFFFL));
        assertEquals(V6_PORTS & 3, hash.pair((long) 5 << 32 | V6_PORTS & 0xFFFF_FFFFL));
        assertEquals(5, hash.pair(ReceiveHash.NONE));
        assertEquals(false, hash.unsteered().steers());
    }

    /** A key that is shorter goes on with zeroes; each key has its own hashes. */
    @Test
    void keysOfAllLengths() {
        Random random = new Random(3);
        byte[] udp = Packets.udp(V6, new byte[1]);
        Frame f = frame(Packets.frame(-1, false, Packets.ipv6(V6, 17, NOTHING, udp)));
        for (int length = 1; length <= ReceiveHash.MAX_KEY; length++) {
            byte[] key = new byte[length];
            random.nextBytes(key);
            ReceiveHash hash = new ReceiveHash(ALL, key, new int[0], 0);
            assertEquals(reference(key, V6, true), (int) hash.of(f));
        }
    }

    /** Bit by bit, as the function is defined. */
    private static int reference(byte[] key, Packets.Ends ends, boolean ports) {
        ByteBuffer input = ByteBuffer.allocate(2 * ends.source().length + (ports ? 4 : 0));
        input.put(ends.source()).put(ends.destination());
        if (ports) {
            input.putShort((short) ends.sourcePort()).putShort((short) ends.destinationPort());
        }
        byte[] k = Arrays.copyOf(key, 41);
        int result = 0;
        for (int bit = 0; bit < 8 * input.capacity(); bit++) {
            if ((input.get(bit / 8) & 0x80 >>> bit % 8) != 0) {
                for (int i = 0; i < 32; i++) {
                    int at = bit + i;
                    if ((k[at / 8] & 0x80 >>> at % 8) != 0) {
                        result ^= 0x8000_0000 >>> i;
                    }
                }
            }
        }
        return result;
    }
}
