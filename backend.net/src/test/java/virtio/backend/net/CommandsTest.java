package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Random;
import java.util.Set;

/** What drivers command, rightly and wrongly. */
class CommandsTest {
    private static final int RSS = NetControl.MQ_RSS_CONFIG;
    private static final int HASH = NetControl.MQ_HASH_CONFIG;
    private static final int TX_SET = NetControl.NOTF_COAL_TX_SET;
    private static final int RX_SET = NetControl.NOTF_COAL_RX_SET;
    private static final int VQ_SET = NetControl.NOTF_COAL_VQ_SET;
    private static final int VQ_GET = NetControl.NOTF_COAL_VQ_GET;
    private static final byte[] KEY = ReceiveHashTest.KEY;

    private FakeCard card;

    @BeforeEach
    void open() throws Exception {
        card = new FakeCard("x,pairs=4");
    }

    @AfterEach
    void close() {
        card.close();
    }

    private static byte[] rss(int types, int mask, int unclassified, int[] table, int tx, int key) {
        ByteBuffer b = FakeCard.data(11 + 2 * table.length + key);
        b.putInt(types).putShort((short) mask).putShort((short) unclassified);
        for (int pair : table) {
            b.putShort((short) pair);
        }
        b.putShort((short) tx).put((byte) key).put(Arrays.copyOf(KEY, key));
        return b.array();
    }

    private static byte[] hash(int types, int keyLength) {
        ByteBuffer b = FakeCard.data(13 + keyLength);
        b.putInt(types).putLong(0).put((byte) keyLength).put(Arrays.copyOf(KEY, keyLength));
        return b.array();
    }

    private boolean mq(int command, byte[] data) throws Exception {
        return card.command(NetControl.MQ, command, data);
    }

    private static Packets.Ends flow(int i) {
        byte[] source = {10, 0, 0, 1};
        byte[] destination = {10, 0, (byte) (i >>> 8), (byte) i};
        return new Packets.Ends(source, destination, 1000 + i, 2000);
    }

    private FakeCard.Received sent(int i) throws Exception {
        byte[] udp = Packets.udp(flow(i), new byte[20]);
        byte[] packet = Packets.ipv4(flow(i), i, 0, new byte[0], Packets.UDP, udp);
        card.send(new byte[0], Packets.frame(-1, true, packet));
        return card.received();
    }

    private FakeCard.Received sentWithoutHash() throws Exception {
        card.send(new byte[0], new byte[60]);
        return card.received();
    }

    @Test
    @Tag("DEV-NET-007")
    @Tag("DEV-NET-008")
    void theConfigurationSaysWhatIsHashed() {
        byte[] config = new byte[NetConfig.BYTES];
        card.backend.readConfig(0, config);
        ByteBuffer b = ByteBuffer.wrap(config).order(ByteOrder.LITTLE_ENDIAN);
        assertEquals(40, b.get(NetConfig.RSS_MAX_KEY_SIZE));
        assertEquals(128, b.getShort(NetConfig.RSS_MAX_INDIRECTION_TABLE_LENGTH));
        assertEquals(0x1FF, b.getInt(NetConfig.SUPPORTED_HASH_TYPES));
    }

    @Test
    @Tag("DEV-NET-013")
    @Tag("DEV-NET-014")
    void withoutAControlQueueThereIsNothingThatNeedsOne() throws Exception {
        String without =
                "x,without=CTRL_VQ,without=CTRL_RX,without=CTRL_VLAN,without=GUEST_ANNOUNCE"
                    + ",without=MQ,without=CTRL_MAC_ADDR,without=NOTF_COAL,without=VQ_NOTF_COAL";
        try (FakeCard other = new FakeCard(without)) {
            assertFalse(other.backend.offered().has(NetFeature.HASH_REPORT));
            assertFalse(other.backend.offered().has(NetFeature.CTRL_RX_EXTRA));
        }
    }

    /** As with vhost-user, where the front-end keeps the control queue. */
    @Test
    void withoutAControlQueuePacketsGoToTheQueuesThatRun() throws Exception {
        try (FakeCard other =
                new FakeCard("x,pairs=4", NetFeature.CTRL_VQ, NetFeature.MQ, NetFeature.RSS)) {
            assertEquals(Set.of(0, 1, 2, 3), pairsUsed(other));
            other.backend.queueStopped(other.queues[6]);
            assertEquals(Set.of(0, 1, 2), pairsUsed(other));
            other.backend.queueStopped(other.queues[4]);
            assertEquals(Set.of(0, 1), pairsUsed(other));
            other.backend.queueStarted(other.queues[4]);
            assertEquals(Set.of(0, 1, 2), pairsUsed(other));
        }
    }

    private static Set<Integer> pairsUsed(FakeCard card) throws Exception {
        Set<Integer> used = new HashSet<>();
        for (int i = 0; i < 64; i++) {
            byte[] udp = Packets.udp(flow(i), new byte[20]);
            byte[] packet = Packets.ipv4(flow(i), i, 0, new byte[0], Packets.UDP, udp);
            card.send(new byte[card.headerBytes], Packets.frame(-1, true, packet));
            used.add(card.received().pair());
        }
        return used;
    }

    @Test
    @Tag("DEV-NET-092")
    void packetsGoWhereTheirHashSays() throws Exception {
        int[] table = {3, 0, 1, 0, 2, 2, 1, 3};
        assertTrue(mq(RSS, rss(1 << HashType.UDPV4.ordinal(), 7, 2, table, 4, 40)));
        ReceiveHash expected = new ReceiveHash(4, KEY, table, 2);
        boolean[] seen = new boolean[4];
        for (int i = 0; i < 64; i++) {
            FakeCard.Received got = sent(i);
            assertEquals(HashType.UDPV4.ordinal() + 1, got.report());
            assertEquals(table[got.hash() & 7], got.pair());
            seen[got.pair()] = true;
            Frame frame = new Frame();
            frame.length = got.frame().length;
            frame.memory
                    .asSlice(Frame.HEADER, frame.length)
                    .copyFrom(MemorySegment.ofArray(got.frame()));
            assertEquals((int) expected.of(frame), got.hash());
        }
        assertArrayEquals(new boolean[] {true, true, true, true}, seen);
        FakeCard.Received plain = sentWithoutHash();
        assertEquals(2, plain.pair());
        assertEquals(0, plain.report());
        assertEquals(0, plain.hash());
    }

    @Test
    @Tag("DEV-NET-093")
    void packetsForAQueueThatIsResetAreDropped() throws Exception {
        assertTrue(mq(RSS, rss(ReceiveHash.TYPES, 0, 1, new int[] {3}, 4, 40)));
        card.backend.queueStopped(card.queues[6]);
        assertNull(sent(1));
        assertEquals(1, card.backend.dropped.sum());
        // It is there for those without a hash.
        assertEquals(1, sentWithoutHash().pair());
        card.queues[6] = new FakeQueue(card.backend, 6);
        assertEquals(3, sent(1).pair());
    }

    @Test
    @Tag("DEV-NET-088")
    @Tag("DEV-NET-090")
    void theLastCommandSaysHowPacketsAreSpread() throws Exception {
        for (int i = 0; i < 8; i++) {
            FakeCard.Received got = sent(i);
            assertEquals(0, got.pair());
            assertEquals(0, got.report(), "nothing is hashed before somebody says what");
        }
        assertTrue(mq(RSS, rss(ReceiveHash.TYPES, 0, 0, new int[] {3}, 4, 40)));
        assertEquals(3, sent(1).pair());
        assertTrue(mq(NetControl.MQ_VQ_PAIRS_SET, new byte[] {2, 0}));
        int second = 0;
        for (int i = 0; i < 64; i++) {
            FakeCard.Received got = sent(i);
            assertTrue(got.pair() < 2);
            assertEquals(HashType.UDPV4.ordinal() + 1, got.report(), "still reported");
            second += got.pair();
        }
        assertTrue(second > 10, second + " of 64");
        card.backend.queueStopped(card.queues[2]);
        for (int i = 0; i < 16; i++) {
            assertEquals(0, sent(i).pair(), "another one is selected");
        }
        assertTrue(mq(RSS, rss(ReceiveHash.TYPES, 0, 0, new int[] {3}, 4, 40)));
        assertEquals(3, sent(1).pair());
        card.backend.accepted(card.backend.offered());
        assertEquals(0, sent(1).pair(), "a new driver has set nothing");
    }

    @Test
    void hashesAreReportedWithoutSteering() throws Exception {
        assertTrue(mq(HASH, hash(1 << HashType.IPV4.ordinal(), 40)));
        FakeCard.Received got = sent(5);
        assertEquals(0, got.pair());
        assertEquals(HashType.IPV4.ordinal() + 1, got.report());
        assertTrue(got.hash() != 0);
        assertTrue(mq(HASH, hash(0, 0)));
        assertEquals(0, sent(5).report());
    }

    @Test
    void withoutHashReportHeadersHaveTheUsualLength() throws Exception {
        try (FakeCard other = new FakeCard("x,pairs=2", NetFeature.HASH_REPORT)) {
            card.close();
            card = other;
            assertTrue(mq(RSS, rss(ReceiveHash.TYPES, 1, 0, new int[] {1, 1}, 2, 40)));
            FakeCard.Received got = sent(3);
            assertEquals(12, got.header().remaining());
            assertEquals(1, got.pair());
            assertFalse(mq(HASH, hash(1, 40)), "not negotiated");
        }
    }

    @Test
    @Tag("DEV-NET-027")
    void hashesComeWithLargePacketsToo() throws Exception {
        assertTrue(mq(HASH, hash(ReceiveHash.TYPES, 40)));
        byte[] payload = new byte[40_000];
        new Random(1).nextBytes(payload);
        Packets.Ends ends = flow(9);
        byte[] udp = Packets.udp(ends, payload);
        byte[] frame =
                Packets.frame(-1, true, Packets.ipv4(ends, 1, 0, new byte[0], Packets.UDP, udp));
        ByteBuffer header = FakeCard.data(card.headerBytes);
        header.put((byte) 1).put((byte) 5).putShort((short) 42);
        header.putShort((short) 1000).putShort((short) 34).putShort((short) 6);
        // What a driver writes in the hash's place means nothing.
        header.putShort((short) 0).putInt(-1).putInt(-1);
        card.send(header.array(), frame);
        FakeCard.Received got = card.received();
        assertArrayEquals(frame, got.frame());
        assertEquals(HashType.UDPV4.ordinal() + 1, got.report());
        assertEquals(1, got.header().getShort(10));
    }

    @Test
    void hashCommandsThatAreWrongAreRefused() throws Exception {
        int[] two = {0, 1};
        int all = ReceiveHash.TYPES;
        assertTrue(mq(RSS, rss(all, 1, 0, two, 4, 40)));
        assertFalse(mq(RSS, rss(all, 2, 0, new int[3], 4, 40)), "three entries");
        assertFalse(mq(RSS, rss(all, 255, 0, new int[256], 4, 40)), "a table too long");
        assertFalse(mq(RSS, rss(all, 0xFFFF, 0, two, 4, 40)), "a table beyond the command");
        assertFalse(mq(RSS, rss(all, 1, 4, two, 4, 40)), "a pair that is not there");
        assertFalse(mq(RSS, rss(all, 1, 0x8000, two, 4, 40)), "the reserved bit");
        assertFalse(mq(RSS, rss(all, 1, 0, new int[] {0, 4}, 4, 40)), "a pair in the table");
        assertFalse(mq(RSS, rss(all, 1, 0, two, 0, 40)), "no transmit queue");
        assertFalse(mq(RSS, rss(all, 1, 0, two, 5, 40)), "five transmit queues");
        assertFalse(mq(RSS, rss(all, 1, 0, two, 4, 41)), "a key too long");
        assertFalse(mq(RSS, rss(all, 1, 0, two, 4, 0)), "no key");
        assertFalse(mq(RSS, rss(0x200, 1, 0, two, 4, 40)), "a type that is not there");
        byte[] good = rss(all, 1, 0, two, 4, 40);
        for (int length = 0; length < good.length + 5; length++) {
            boolean whole = length >= good.length; // Linux sends more.
            assertEquals(whole, mq(RSS, Arrays.copyOf(good, length)), length + " bytes");
        }
        byte[] same = hash(all, 40);
        for (int length = 0; length < same.length + 5; length++) {
            boolean whole = length >= same.length;
            assertEquals(whole, mq(HASH, Arrays.copyOf(same, length)), length + " bytes");
        }
        assertFalse(mq(HASH, hash(all, 41)), "a key too long");
        assertFalse(mq(3, good), "a command that is not there");
        assertFalse(mq(255, good), "a command that is not there");
    }

    @Test
    void offloadsThatWereNegotiatedCanBeSwitched() throws Exception {
        long tso = 1L << NetFeature.GUEST_TSO4 | 1L << NetFeature.GUEST_CSUM;
        long length = 1L << NetFeature.GUEST_HDRLEN; // by Linux
        for (long wanted : new long[] {0, tso, tso | length}) {
            byte[] data = FakeCard.data(8).putLong(wanted).array();
            assertTrue(card.command(NetControl.GUEST_OFFLOADS, 0, data), () -> "" + wanted);
        }
        byte[] other = FakeCard.data(8).putLong(1L << NetFeature.HOST_TSO4).array();
        assertFalse(card.command(NetControl.GUEST_OFFLOADS, 0, other));
    }

    @Test
    void aRefusedCommandChangesNothing() throws Exception {
        assertTrue(mq(RSS, rss(ReceiveHash.TYPES, 0, 0, new int[] {2}, 4, 40)));
        assertFalse(mq(RSS, rss(ReceiveHash.TYPES, 1, 0, new int[] {1, 9}, 4, 40)));
        assertEquals(2, sent(4).pair());
    }

    @Test
    void withoutRssTheCommandIsRefused() throws Exception {
        try (FakeCard other = new FakeCard("x,pairs=2", NetFeature.RSS, NetFeature.NOTF_COAL)) {
            card.close();
            card = other;
            assertFalse(mq(RSS, rss(ReceiveHash.TYPES, 0, 0, new int[] {0}, 2, 40)));
            assertFalse(delay(RX_SET, numbers(1, 1)));
            assertTrue(delay(VQ_SET, numbers(0, 1, 1)));
        }
    }

    private boolean delay(int command, byte[] data) throws Exception {
        return card.command(NetControl.NOTF_COAL, command, data);
    }

    private static byte[] numbers(int... numbers) {
        ByteBuffer b = FakeCard.data(4 * numbers.length);
        for (int number : numbers) {
            b.putInt(number);
        }
        return b.array();
    }

    /** Packets and microseconds of a queue; nothing when the device refuses. */
    private int[] delayOf(int queue) throws Exception {
        byte[] reply = card.ask(NetControl.NOTF_COAL, VQ_GET, numbers(queue), 8);
        if (reply == null) {
            return new int[0];
        }
        ByteBuffer b = ByteBuffer.wrap(reply).order(ByteOrder.LITTLE_ENDIAN);
        return new int[] {b.getInt(), b.getInt()};
    }

    /** The example of 5.1.6.5.9, six commands long. */
    @Test
    @Tag("DEV-NET-104")
    void theLastDelaySetCounts() throws Exception {
        for (int queue = 0; queue < 8; queue++) {
            assertArrayEquals(new int[] {0, 0}, delayOf(queue));
        }
        assertTrue(delay(RX_SET, numbers(10, 11)));
        assertArrayEquals(new int[] {10, 11}, delayOf(0));
        assertArrayEquals(new int[] {0, 0}, delayOf(1));
        assertArrayEquals(new int[] {10, 11}, delayOf(2));
        assertTrue(delay(VQ_SET, numbers(0, 20, 21)));
        assertArrayEquals(new int[] {20, 21}, delayOf(0));
        assertArrayEquals(new int[] {10, 11}, delayOf(2));
        assertTrue(delay(VQ_SET, numbers(1, 40, 41)));
        assertArrayEquals(new int[] {40, 41}, delayOf(1));
        assertArrayEquals(new int[] {0, 0}, delayOf(3));
        assertTrue(delay(TX_SET, numbers(-1, -2)));
        assertArrayEquals(new int[] {-1, -2}, delayOf(1));
        assertArrayEquals(new int[] {-1, -2}, delayOf(3));
        card.backend.accepted(card.backend.offered());
        card.backend.queueStopped(card.queues[1]);
        card.queues[1] = new FakeQueue(card.backend, 1);
        assertArrayEquals(new int[] {0, 0}, delayOf(1));
    }

    @Test
    @Tag("DEV-NET-100")
    @Tag("DEV-NET-101")
    void aQueueThatIsResetHasWhatAllWereSet() throws Exception {
        assertTrue(delay(VQ_SET, numbers(2, 5, 6)));
        assertTrue(delay(VQ_SET, numbers(3, 7, 8)));
        card.backend.queueStopped(card.queues[2]);
        card.queues[2] = new FakeQueue(card.backend, 2);
        assertArrayEquals(new int[] {0, 0}, delayOf(2));
        assertTrue(delay(RX_SET, numbers(1, 2)));
        assertTrue(delay(TX_SET, numbers(3, 4)));
        assertTrue(delay(VQ_SET, numbers(2, 5, 6)));
        for (int queue = 2; queue < 4; queue++) {
            card.backend.queueStopped(card.queues[queue]);
            card.queues[queue] = new FakeQueue(card.backend, queue);
        }
        assertArrayEquals(new int[] {1, 2}, delayOf(2));
        assertArrayEquals(new int[] {3, 4}, delayOf(3));
    }

    @Test
    @Tag("DEV-NET-096")
    @Tag("DEV-NET-097")
    @Tag("DEV-NET-098")
    @Tag("DEV-NET-099")
    void delayCommandsThatAreWrongAreRefused() throws Exception {
        assertTrue(delay(VQ_SET, numbers(0xABCD_0000, 1, 2)), "reserved bits mean nothing");
        assertArrayEquals(new int[] {1, 2}, delayOf(0xFFFF_0000));
        for (int queue : new int[] {8, 9, 0x7FFF, 0xFFFF}) {
            assertFalse(delay(VQ_SET, numbers(queue, 1, 2)));
            assertEquals(0, delayOf(queue).length);
        }
        card.backend.queueStopped(card.queues[5]);
        assertFalse(delay(VQ_SET, numbers(5, 1, 2)), "a queue that does not run");
        assertEquals(0, delayOf(5).length);
        for (int command = 0; command < 6; command++) {
            int right = command < 2 ? 8 : command == 2 ? 12 : -1;
            for (int length = 0; length < 20; length++) {
                assertEquals(
                        length == right,
                        delay(command, new byte[length]),
                        "command %d of %d bytes".formatted(command, length));
            }
        }
        assertNull(card.ask(NetControl.NOTF_COAL, VQ_GET, numbers(0), 7), "no room to answer");
        assertNull(card.ask(NetControl.NOTF_COAL, VQ_GET, numbers(0), 9), "too much of it");
    }

    /** Nothing that a driver commands does harm. */
    @Test
    void randomCommands() throws Exception {
        Random random = new Random(5);
        for (int i = 0; i < 50_000; i++) {
            byte[] data = new byte[random.nextInt(64)];
            random.nextBytes(data);
            if (data.length > 8 && random.nextBoolean()) {
                Arrays.fill(data, 1, 8, (byte) 0);
                data[4] = (byte) ((1 << random.nextInt(5)) - 1);
            }
            card.command(random.nextInt(9), random.nextInt(7), data);
        }
        for (FakeQueue queue : card.queues) {
            queue.used.clear();
        }
        FakeCard.Received got = sentWithoutHash();
        assertTrue(got == null || got.pair() < 4);
    }
}
