package virtio.backend.net;

import java.nio.ByteBuffer;
import java.util.Arrays;

/** Frames as the standards have them, with checksums by another sum than the code's. */
final class Packets {
    static final int TCP = 6;
    static final int UDP = 17;

    /** Where it is sent from and to. */
    record Ends(byte[] source, byte[] destination, int sourcePort, int destinationPort) {
        boolean v4() {
            return source.length == 4;
        }
    }

    private Packets() {}

    /** A frame, tagged where a VLAN is given, with a packet of the version that the ends have. */
    static byte[] frame(int vlan, boolean v4, byte[] packet) {
        ByteBuffer b = ByteBuffer.allocate((vlan < 0 ? 14 : 18) + packet.length);
        b.put(new byte[] {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2});
        if (vlan >= 0) {
            b.putShort((short) 0x8100).putShort((short) vlan);
        }
        return b.putShort((short) (v4 ? 0x0800 : 0x86DD)).put(packet).array();
    }

    /** IPv4; options of a multiple of 4 bytes, fragment field as it stands in the header. */
    static byte[] ipv4(
            Ends ends, int id, int fragment, byte[] options, int protocol, byte[] upper) {
        int header = 20 + options.length;
        ByteBuffer b = ByteBuffer.allocate(header + upper.length);
        b.put((byte) (0x40 | header / 4)).put((byte) 0).putShort((short) b.capacity());
        b.putShort((short) id).putShort((short) fragment);
        b.put((byte) 64).put((byte) protocol).putShort((short) 0);
        b.put(ends.source).put(ends.destination).put(options);
        b.putShort(10, (short) ~sum(Arrays.copyOf(b.array(), header)));
        return b.put(upper).array();
    }

    /** IPv6 with extension headers, of which the first has that number. */
    static byte[] ipv6(Ends ends, int next, byte[] extensions, byte[] upper) {
        ByteBuffer b = ByteBuffer.allocate(40 + extensions.length + upper.length);
        b.putInt(0x6000_0000).putShort((short) (extensions.length + upper.length));
        b.put((byte) next).put((byte) 64).put(ends.source).put(ends.destination);
        return b.put(extensions).put(upper).array();
    }

    /** TCP with 12 bytes of options; its checksum for these ends. */
    static byte[] tcp(Ends ends, int sequence, int flags, byte[] payload) {
        ByteBuffer b = ByteBuffer.allocate(32 + payload.length);
        b.putShort((short) ends.sourcePort).putShort((short) ends.destinationPort);
        b.putInt(sequence).putInt(77).put((byte) 0x80).put((byte) flags).putShort((short) 500);
        b.putInt(0).put(new byte[] {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}).put(payload);
        b.putShort(16, (short) checksum(ends, TCP, b.array()));
        return b.array();
    }

    static byte[] udp(Ends ends, byte[] payload) {
        ByteBuffer b = ByteBuffer.allocate(8 + payload.length);
        b.putShort((short) ends.sourcePort).putShort((short) ends.destinationPort);
        b.putShort((short) b.capacity()).putShort((short) 0).put(payload);
        b.putShort(6, (short) checksum(ends, UDP, b.array()));
        return b.array();
    }

    /** Puts the sum of the pseudo header in place of the checksum of what was built above. */
    static byte[] partial(Ends ends, int protocol, byte[] upper) {
        byte[] copy = upper.clone();
        int sum = sum(pseudo(ends, protocol, upper.length));
        ByteBuffer.wrap(copy).putShort(protocol == TCP ? 16 : 6, (short) sum);
        return copy;
    }

    private static byte[] pseudo(Ends ends, int protocol, int length) {
        ByteBuffer b = ByteBuffer.allocate(2 * ends.source.length + 8);
        return b.put(ends.source).put(ends.destination).putInt(length).putInt(protocol).array();
    }

    private static int checksum(Ends ends, int protocol, byte[] upper) {
        byte[] pseudo = pseudo(ends, protocol, upper.length);
        byte[] all = Arrays.copyOf(pseudo, pseudo.length + upper.length);
        System.arraycopy(upper, 0, all, pseudo.length, upper.length);
        int sum = ~sum(all) & 0xFFFF;
        return sum == 0 ? 0xFFFF : sum;
    }

    /** Two bytes at a time, the carry added at once. */
    private static int sum(byte[] bytes) {
        int sum = 0;
        for (int i = 0; i < bytes.length; i += 2) {
            int low = i + 1 < bytes.length ? bytes[i + 1] & 0xFF : 0;
            sum += (bytes[i] & 0xFF) << 8 | low;
            sum = (sum & 0xFFFF) + (sum >>> 16);
        }
        return sum;
    }
}
