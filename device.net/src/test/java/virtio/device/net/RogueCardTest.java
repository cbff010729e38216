package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;
import virtio.api.net.DropReason;
import virtio.api.net.HashType;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.PacketBuffer;

import java.lang.reflect.Proxy;
import java.util.ArrayDeque;
import java.util.Map;

/** A device that says something wrong about the frames it delivers. */
class RogueCardTest {
    private static final int SIZE = 64;
    private static final int BUFFERS = 80;
    private static final int PARTIAL = NetHeader.F_NEEDS_CSUM;

    /** Buffers that the device has, and those that it has used: token and length. */
    private final ArrayDeque<Long> posted = new ArrayDeque<>();

    private final ArrayDeque<long[]> used = new ArrayDeque<>();
    private final NetCounts counts = new NetCounts();
    private PacketPool pool;
    private ReceiveRing ring;

    /** Where the header lies in a buffer. */
    private int header;

    @BeforeEach
    void start() throws Exception {
        start(Features.of(NetFeature.MRG_RXBUF, NetFeature.GUEST_CSUM, NetFeature.GUEST_TSO4));
    }

    private void start(Features features) throws Exception {
        Virtqueue queue =
                (Virtqueue)
                        Proxy.newProxyInstance(
                                getClass().getClassLoader(),
                                new Class<?>[] {Virtqueue.class},
                                (self, method, args) ->
                                        switch (method.getName()) {
                                            case "size", "maxElements" -> SIZE;
                                            case "mapping" -> MAPPING;
                                            case "add" ->
                                                    add((ScatterList) args[0], (long) args[1]);
                                            case "addInMapped" ->
                                                    addIn((long[]) args[2], (int) args[3]);
                                            case "get" -> get((long[]) args[0], (int[]) args[1]);
                                            default -> false;
                                        });
        pool = new PacketPool("net0", MAPPING, BUFFERS);
        NetLimits limits = new NetLimits(features, null, 1500, 1, 1, NetLimits.Hashing.NONE);
        header = PacketBuffer.HEADROOM - limits.headerBytes();
        ring = new ReceiveRing(queue, pool, limits, counts);
        ring.refill(1);
        assertEquals(SIZE, posted.size());
    }

    private static final DeviceMapping MAPPING = mapping();

    private static DeviceMapping mapping() {
        var ops = new virtio.tck.CopyingMapOps(8 << 20);
        return new DeviceMapping(ops, ops.token());
    }

    private boolean add(ScatterList buffer, long token) {
        assertEquals(0, buffer.outCount());
        return posted.add(token);
    }

    private int addIn(long[] tokens, int count) {
        for (int i = 0; i < count; i++) {
            posted.add(tokens[i]);
        }
        return count;
    }

    private int get(long[] tokens, int[] lengths) {
        int count = 0;
        while (count < tokens.length && !used.isEmpty()) {
            tokens[count] = used.peek()[0];
            lengths[count++] = (int) used.poll()[1];
        }
        return count;
    }

    @AfterEach
    void everyBufferIsSomewhere() {
        while (!used.isEmpty()) {
            ring.nextFrame();
        }
        int held = 0;
        for (Packet p : pool.slots) {
            held += p.state == Packet.POSTED ? 1 : 0;
        }
        assertEquals(posted.size(), held);
        assertEquals(BUFFERS, pool.free() + held);
    }

    /** The next frame, taken as a consumer's burst takes it. */
    private Packet next() {
        PacketBuffer[] one = new PacketBuffer[1];
        return ring.frames(one, 0) == 0 ? null : (Packet) one[0];
    }

    /** The device uses the next buffer. */
    private void use(int length, int flags, int gso, int gsoSize, int start, int offset, int n) {
        long token = posted.poll();
        var slot = pool.slots[(int) token].segment;
        slot.set(
                Packet.LONG,
                header,
                flags | (long) gso << 8 | (long) gsoSize << 32 | (long) start << 48);
        slot.set(Packet.INT, header + NetHeader.CSUM_OFFSET, offset | n << 16);
        used.add(new long[] {token, length});
    }

    private void dropped(DropReason reason) {
        assertNull(next());
        assertEquals(Map.of(reason, 1L), counts.snapshot().dropped());
        // The next one is none the worse for it.
        use(NetHeader.BYTES + 60, 0, 0, 0, 0, 0, 1);
        good(60);
    }

    private Packet good(int length) {
        Packet p = next();
        assertNotNull(p);
        assertEquals(length, p.frameLength());
        PacketPool.putAll(p);
        return p;
    }

    @Test
    void lessThanAHeader() {
        use(NetHeader.BYTES - 1, 0, 0, 0, 0, 0, 1);
        dropped(DropReason.SHORT);
    }

    @Test
    void lessThanAnEthernetHeader() {
        use(NetHeader.BYTES + 13, 0, 0, 0, 0, 0, 1);
        dropped(DropReason.SHORT);
    }

    @Test
    void noBuffers() {
        use(100, 0, 0, 0, 0, 0, 0);
        dropped(DropReason.NUM_BUFFERS);
    }

    @Test
    void moreBuffersThanTheDriverHasGiven() {
        use(100, 0, 0, 0, 0, 0, SIZE + 1);
        dropped(DropReason.NUM_BUFFERS);
    }

    @Test
    void moreBuffersThanTheDeviceHasUsed() {
        use(100, 0, 0, 0, 0, 0, 3);
        use(100, 0, 0, 0, 0, 0, 1);
        dropped(DropReason.NUM_BUFFERS);
    }

    @Test
    void moreBytesThanAFrameHas() {
        use(NetHeader.BYTES + PacketPool.DATA_BYTES, 0, 0, 0, 0, 0, 34);
        for (int i = 1; i < 34; i++) {
            use(NetHeader.BYTES + PacketPool.DATA_BYTES, 0, 0, 0, 0, 0, 1);
        }
        dropped(DropReason.LONG);
    }

    @Test
    void aChecksumBeyondTheFrame() {
        use(NetHeader.BYTES + 60, PARTIAL, 0, 0, 34, 25, 1);
        dropped(DropReason.CHECKSUM_RANGE);
    }

    @Test
    void aChecksumThatStartsBeyondTheFrame() {
        use(NetHeader.BYTES + 60, PARTIAL, 0, 0, 0xFFFF, 0xFFFF, 1);
        dropped(DropReason.CHECKSUM_RANGE);
    }

    @Test
    void segmentationThatWasNotNegotiated() {
        use(NetHeader.BYTES + 60, PARTIAL, NetHeader.GSO_TCPV6, 100, 34, 16, 1);
        dropped(DropReason.OFFLOAD);
    }

    @Test
    @Tag("DRV-NET-062")
    @Tag("DRV-NET-064")
    void segmentationThatIsNotKnown() {
        use(NetHeader.BYTES + 60, PARTIAL, 0x7F, 100, 34, 16, 1);
        dropped(DropReason.OFFLOAD);
    }

    @Test
    void segmentationIntoNothing() {
        use(NetHeader.BYTES + 60, PARTIAL, NetHeader.GSO_TCPV4, 0, 34, 16, 1);
        dropped(DropReason.OFFLOAD);
    }

    @Test
    void segmentationWithoutAChecksum() {
        use(NetHeader.BYTES + 60, 0, NetHeader.GSO_TCPV4, 100, 34, 16, 1);
        dropped(DropReason.OFFLOAD);
    }

    @Test
    void aPartialChecksumThatWasNotNegotiated() throws Exception {
        posted.clear();
        start(Features.of(NetFeature.MRG_RXBUF));
        use(NetHeader.BYTES + 60, PARTIAL, 0, 0, 34, 16, 1);
        dropped(DropReason.OFFLOAD);
    }

    @Test
    @Tag("DRV-NET-055")
    @Tag("DRV-NET-058")
    @Tag("DRV-NET-061")
    void whatMeansNothingIsNotLookedAt() {
        use(NetHeader.BYTES + 60, 0xF8, 0, 0xFFFF, 0xFFFF, 0xFFFF, 1);
        Packet p = good(60);
        assertEquals(false, p.needsChecksum());
        assertEquals(false, p.checksumValid());
        assertEquals(0, p.checksumStart());
    }

    @Test
    void aFrameInSeveralBuffers() {
        use(NetHeader.BYTES + PacketPool.DATA_BYTES, PARTIAL, NetHeader.GSO_TCPV4, 1448, 34, 16, 2);
        use(500, 0, 0, 0, 0, 0, 77);
        Packet p = next();
        assertEquals(PacketPool.DATA_BYTES + 500, p.frameLength());
        assertEquals(NetHeader.GSO_TCPV4, p.gsoType());
        assertEquals(1448, p.gsoSize());
        assertEquals(34, p.checksumStart());
        assertEquals(16, p.checksumOffset());
        PacketPool.putAll(p);
    }

    @Test
    void aHashOfWhatHasNoName() throws Exception {
        posted.clear();
        start(Features.of(NetFeature.MRG_RXBUF, NetFeature.HASH_REPORT));
        for (int report : new int[] {HashType.MAX_REPORT + 1, 0xFFFF}) {
            Packet p = hashed(report);
            assertNull(p.hashType());
            assertEquals(0, p.hash());
        }
        assertEquals(2, counts.snapshot().badHashes());
        assertEquals(Map.of(), counts.snapshot().dropped());
        Packet p = hashed(HashType.MAX_REPORT);
        assertEquals(HashType.UDP_EX, p.hashType());
        assertEquals(0xCAFE, p.hash());
        assertNull(hashed(0).hashType());
        assertEquals(2, counts.snapshot().badHashes());
    }

    private Packet hashed(int report) {
        var slot = pool.slots[posted.peek().intValue()].segment;
        slot.set(Packet.INT, header + NetHeader.HASH_VALUE, 0xCAFE);
        // What is reserved behind the number is not looked at.
        slot.set(Packet.INT, header + NetHeader.HASH_TYPE, report | 0xABCD_0000);
        use(NetHeader.HASH_BYTES + 60, 0, 0, 0, 0, 0, 1);
        return good(60);
    }

    @Test
    @Tag("DRV-NET-052")
    void lessThanTheLongerHeader() throws Exception {
        posted.clear();
        start(Features.of(NetFeature.MRG_RXBUF, NetFeature.HASH_REPORT));
        use(NetHeader.HASH_BYTES + 13, 0, 0, 0, 0, 0, 1);
        assertNull(next());
        assertEquals(Map.of(DropReason.SHORT, 1L), counts.snapshot().dropped());
    }
}
