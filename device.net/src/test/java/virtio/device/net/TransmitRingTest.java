package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.Features;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.PacketBuffer;
import virtio.tck.CopyingMapOps;

import java.lang.foreign.ValueLayout;
import java.lang.reflect.Proxy;

/** The header that a device sees before a frame. */
class TransmitRingTest {
    private static final int SIZE = 16;
    private static final int HEADER = PacketBuffer.HEADROOM - NetHeader.HASH_BYTES;
    private static final int START = 34;
    private static final int TCP_OFFSET = START + 12;

    private PacketPool pool;
    private TransmitRing ring;

    @BeforeEach
    void start() throws Exception {
        CopyingMapOps ops = new CopyingMapOps(1 << 20);
        DeviceMapping mapping = new DeviceMapping(ops, ops.token());
        pool = new PacketPool("net0", mapping, SIZE);
        Virtqueue queue =
                (Virtqueue)
                        Proxy.newProxyInstance(
                                getClass().getClassLoader(),
                                new Class<?>[] {Virtqueue.class},
                                (self, method, args) ->
                                        switch (method.getName()) {
                                            case "size", "maxElements", "free" -> SIZE;
                                            case "add" -> true;
                                            default -> throw new AssertionError(method);
                                        });
        Features features =
                Features.of(
                        NetFeature.CSUM,
                        NetFeature.HOST_TSO4,
                        NetFeature.HOST_USO,
                        NetFeature.HASH_REPORT,
                        NetFeature.GUEST_HDRLEN);
        NetLimits limits = new NetLimits(features, null, 1500, 1, 1, NetLimits.Hashing.NONE);
        ring = new TransmitRing(queue, pool, limits, new NetCounts(), 0);
    }

    /** A frame whose first buffer has so many of its bytes; TCP with headers of 32 bytes. */
    private Packet frame(int first, int rest, int type) {
        Packet p = pool.take();
        p.hand();
        p.segment.fill((byte) 0x77);
        p.frame(PacketBuffer.HEADROOM, first);
        Packet holder = p;
        int at = TCP_OFFSET;
        if (rest > 0) {
            Packet second = pool.take();
            second.hand();
            second.frame(PacketBuffer.HEADROOM, rest);
            p.chain(second);
            if (first <= TCP_OFFSET) {
                holder = second;
                at = TCP_OFFSET - first;
            }
        }
        holder.segment.set(ValueLayout.JAVA_BYTE, PacketBuffer.HEADROOM + at, (byte) 0x80);
        p.requestChecksum(START, type == NetHeader.GSO_UDP_L4 ? 6 : 16);
        // A number as other devices give, which need not be right.
        p.requestSegmentation(type, 100, 7);
        return p;
    }

    private int send(Packet p) {
        return ring.send(new PacketBuffer[] {p}, 1, null);
    }

    @ParameterizedTest
    @CsvSource({"500, 0", "46, 500", "47, 500", "34, 500", "20, 500"})
    @Tag("DRV-NET-036")
    @Tag("DRV-NET-015")
    @Tag("DRV-NET-026")
    @Tag("DRV-NET-029")
    @Tag("DRV-NET-044")
    @Tag("DRV-NET-046")
    @Tag("DRV-NET-060")
    void theLengthOfHeadersIsExact(int first, int rest) {
        int[][] expected = {
            {NetHeader.GSO_TCPV4, START + 32}, {NetHeader.GSO_UDP_L4, START + 8},
        };
        for (int[] e : expected) {
            Packet p = frame(first, rest, e[0]);
            assertEquals(1, send(p));
            long head = p.segment.get(Packet.LONG, HEADER);
            assertEquals(NetHeader.F_NEEDS_CSUM, head & 0xFF);
            assertEquals(e[0], head >>> 8 & 0xFF);
            assertEquals(e[1], head >>> 16 & 0xFFFF);
            assertEquals(100, head >>> 32 & 0xFFFF);
            assertEquals(START, head >>> 48);
            assertEquals(0, p.segment.get(Packet.INT, HEADER + NetHeader.CSUM_OFFSET) >>> 16);
            assertEquals(0, p.segment.get(Packet.LONG, HEADER + NetHeader.HASH_VALUE));
        }
    }

    @Test
    @Tag("DRV-NET-019")
    @Tag("DRV-NET-020")
    @Tag("DRV-NET-022")
    @Tag("DRV-NET-023")
    @Tag("DRV-NET-043")
    void segmentationThatWasNotNegotiatedIsRefused() {
        int ecn = NetHeader.GSO_TCPV4 | NetHeader.GSO_ECN;
        for (int type : new int[] {NetHeader.GSO_TCPV6, 3, ecn, 0x21, 0x41, 0x25, 0x45, 2}) {
            Packet p = frame(500, 0, NetHeader.GSO_TCPV4);
            p.requestSegmentation(type, 100, 66);
            assertThrows(IllegalArgumentException.class, () -> send(p), "type " + type);
            PacketPool.putAll(p);
        }
        Packet p = frame(500, 0, NetHeader.GSO_TCPV4);
        p.clearOffloads();
        p.requestSegmentation(NetHeader.GSO_TCPV4, 100, 66);
        assertThrows(IllegalArgumentException.class, () -> send(p), "without a checksum");
    }

    @Test
    void headersThatTheFrameDoesNotHaveAreRefused() {
        Packet tcp = frame(START + 31, 0, NetHeader.GSO_TCPV4);
        String said = assertThrows(IllegalArgumentException.class, () -> send(tcp)).getMessage();
        assertEquals("headers of 66 bytes in a frame of 65", said);
        Packet shorter = frame(START + 19, 0, NetHeader.GSO_TCPV4);
        assertThrows(IllegalArgumentException.class, () -> send(shorter));
        assertEquals(1, send(frame(START + 8, 0, NetHeader.GSO_UDP_L4)));
    }
}
