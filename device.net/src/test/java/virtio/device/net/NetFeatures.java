package virtio.device.net;

import virtio.api.Features;
import virtio.api.net.InternetChecksum;
import virtio.api.net.NetFeature;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.Random;
import java.util.stream.IntStream;

/** Features and packets that tests use. */
final class NetFeatures {
    static final String WITHOUT_GUEST =
            ",without=GUEST_TSO4,without=GUEST_TSO6,without=GUEST_ECN,without=GUEST_USO4"
                    + ",without=GUEST_USO6";
    static final String WITHOUT_HOST =
            ",without=HOST_TSO4,without=HOST_TSO6,without=HOST_ECN,without=HOST_USO";

    /** Every bit that has a name. */
    static final Features EVERY =
            Features.of(
                    IntStream.range(0, 64).filter(bit -> NetFeature.name(bit) != null).toArray());

    /** What can be left out. */
    static final Features ALL = EVERY.without(NetFeature.MAC);

    private NetFeatures() {}

    /** UDP over IPv4 with that many bytes of payload, its checksum the pseudo header's. */
    static byte[] udp(byte[] to, byte[] from, int payload) {
        byte[] packet = ip(to, from, 17, 8 + payload);
        ByteBuffer b = ByteBuffer.wrap(packet);
        b.putShort(34, (short) 1000).putShort(36, (short) 2000);
        b.putShort(38, (short) (8 + payload));
        b.putShort(40, (short) pseudo(packet, 17, 8 + payload));
        return packet;
    }

    /** TCP over IPv4 with sequence number 1, ACK, PSH and FIN. */
    static byte[] tcp(byte[] to, byte[] from, int payload) {
        byte[] packet = ip(to, from, 6, 20 + payload);
        ByteBuffer b = ByteBuffer.wrap(packet);
        b.putShort(34, (short) 1000).putShort(36, (short) 2000).putInt(38, 1).putInt(42, 2);
        b.putInt(46, 0x5019_FFFF).putInt(50, 0);
        b.putShort(50, (short) pseudo(packet, 6, 20 + payload));
        return packet;
    }

    private static byte[] ip(byte[] to, byte[] from, int protocol, int length) {
        byte[] packet = new byte[34 + length];
        new Random(length).nextBytes(packet);
        ByteBuffer b = ByteBuffer.wrap(packet).put(to).put(from).putShort((short) 0x0800);
        b.putShort((short) 0x4500).putShort((short) (20 + length)).putInt(0x1234_4000);
        b.put((byte) 64).put((byte) protocol).putShort((short) 0);
        b.putInt(0x0A00_0001).putInt(0x0A00_0002);
        b.putShort(24, (short) ~InternetChecksum.fold(sum(packet, 14, 20, 0)));
        return packet;
    }

    private static int pseudo(byte[] packet, int protocol, int length) {
        return InternetChecksum.fold(sum(packet, 26, 8, protocol + length));
    }

    private static long sum(byte[] packet, int from, int length, long before) {
        return InternetChecksum.sum(MemorySegment.ofArray(packet), from, length, before);
    }

    /** Whether both sums of such a packet come out. */
    static boolean checksumIsRight(byte[] packet) {
        int length = packet.length - 34;
        long both = sum(packet, 26, 8, (packet[23] & 0xFF) + length);
        return InternetChecksum.fold(sum(packet, 34, length, both)) == 0xFFFF
                && InternetChecksum.fold(sum(packet, 14, 20, 0)) == 0xFFFF;
    }
}
