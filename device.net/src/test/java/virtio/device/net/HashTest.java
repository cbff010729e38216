package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
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
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.HashConfig;
import virtio.api.net.HashType;
import virtio.api.net.NetDevice;
import virtio.api.net.NetFeature;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** Received packets hashed and spread by the real backends. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class HashTest {
    /** Microsoft's, as the addresses and hashes. */
    private static final byte[] KEY =
            HexFormat.of()
                    .parseHex(
                            "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b4"
                                    + "77cb2da38030f20c6a42b73bbeac01fa");

    private static final Set<HashType> ALL = EnumSet.allOf(HashType.class);
    private static final int SOURCE = 0x420995BB;
    private static final int DESTINATION = 0xA18E6450;
    private static final int PORTS_HASH = 0x51ccc178;

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

    private static byte[] packet(byte[] mac, int sourcePort) {
        byte[] packet = NetFeatures.udp(mac, mac, 100);
        ByteBuffer b = ByteBuffer.wrap(packet).putInt(26, SOURCE).putInt(30, DESTINATION);
        b.putShort(34, (short) sourcePort).putShort(36, (short) 1766);
        return packet;
    }

    /** The pair that a packet comes out of, and its hash. */
    private record Seen(int pair, HashType type, int hash) {}

    private static Seen sent(List<NetQueue> queues, byte[] packet) {
        NetQueue first = queues.getFirst();
        Rig.send(first, Rig.fill(first, packet));
        PacketBuffer[] one = new PacketBuffer[1];
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (System.nanoTime() < end) {
            for (int pair = 0; pair < queues.size(); pair++) {
                if (queues.get(pair).receive(one) == 1) {
                    Seen seen = new Seen(pair, one[0].hashType(), one[0].hash());
                    assertTrue(Arrays.equals(packet, Rig.bytes(one[0])));
                    queues.get(pair).free(one, 1);
                    return seen;
                }
            }
        }
        throw new AssertionError("no packet");
    }

    private static List<NetQueue> queues(NetDevice card) throws VirtioException {
        NetQueue[] queues = new NetQueue[card.queuePairs()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = card.openQueue(i);
        }
        return List.of(queues);
    }

    @ParameterizedTest
    @ValueSource(strings = {"", ",without=MRG_RXBUF", ",without=MQ"})
    @Tag("DRV-NET-014")
    @Tag("DRV-NET-053")
    @Tag("DRV-NET-052")
    @Tag("DRV-NET-082")
    @Tag("DEV-NET-092")
    void packetsGoToThePairThatTheirHashSays(String without) throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,pairs=3" + without, "net0");
        assertEquals(ALL, card.hashTypes());
        assertEquals(3, card.queuePairs());
        assertNull(card.hash());
        List<NetQueue> queues = queues(card);
        if (without.contains("=MQ")) {
            // There is no other way to have all pairs: the driver has set something.
            assertNotNull(sent(queues, packet(card.macAddress(), 1)).type());
        } else {
            assertNull(sent(queues, packet(card.macAddress(), 1)).type());
        }
        List<Integer> table = List.of(0, 1, 2, 1, 0, 2, 2, 1);
        HashConfig config = new HashConfig(Set.of(HashType.UDPV4), KEY, table, 2);
        card.hash(config);
        assertEquals(config, card.hash());
        Seen known = sent(queues, packet(card.macAddress(), 2794));
        assertEquals(HashType.UDPV4, known.type());
        assertEquals(PORTS_HASH, known.hash());
        boolean[] seen = new boolean[3];
        for (int port = 1; port < 60; port++) {
            Seen s = sent(queues, packet(card.macAddress(), port));
            assertEquals(table.get(s.hash() & 7), s.pair());
            seen[s.pair()] = true;
        }
        assertTrue(seen[0] && seen[1] && seen[2]);
        byte[] mac = card.macAddress();
        assertEquals(new Seen(2, null, 0), sent(queues, Rig.frame(60, mac, mac, 1)));
        // Evenly, without a table; and then not at all.
        card.hash(new HashConfig(ALL, KEY));
        Arrays.fill(seen, false);
        for (int port = 1; port < 60; port++) {
            Seen s = sent(queues, packet(card.macAddress(), port));
            assertEquals((s.hash() & 127) % 3, s.pair());
            seen[s.pair()] = true;
        }
        assertTrue(seen[0] && seen[1] && seen[2]);
        card.hash(new HashConfig(Set.of(), new byte[0]));
        assertNull(card.hash());
        Seen off = sent(queues, packet(card.macAddress(), 2794));
        assertEquals(without.contains("=MQ"), off.type() != null);
    }

    @Test
    void aCardWithOnePairReportsHashes() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:", "net0");
        assertEquals(Features.NONE, card.features().and(Features.of(NetFeature.RSS)));
        List<NetQueue> queues = queues(card);
        card.hash(new HashConfig(EnumSet.of(HashType.IPV4, HashType.UDPV4), KEY));
        assertEquals(
                new Seen(0, HashType.UDPV4, PORTS_HASH),
                sent(queues, packet(card.macAddress(), 2794)));
        String said =
                assertThrows(
                                VirtioException.class,
                                () -> card.hash(new HashConfig(ALL, KEY, List.of(0), 0)))
                        .getMessage();
        assertTrue(said.contains("RSS is not negotiated"), said);
    }

    /** Large packets have the longer header before them as well. */
    @ParameterizedTest
    @ValueSource(strings = {"", ",without=MRG_RXBUF"})
    @Tag("DRV-NET-007")
    @Tag("DRV-NET-050")
    void framesOfEverySizeWithHashes(String without) throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,mtu=65535" + without, "net0");
        List<NetQueue> queues = queues(card);
        card.hash(new HashConfig(ALL, KEY));
        byte[] mac = card.macAddress();
        for (int length = 14; length <= 65_549; length += length < 100 ? 1 : 1999) {
            sent(queues, Rig.frame(length, mac, mac, length));
        }
        for (int payload = 0; payload < 65_000; payload += 4999) {
            Seen seen = sent(queues, NetFeatures.udp(mac, mac, payload));
            assertEquals(HashType.UDPV4, seen.type());
        }
    }

    @Test
    @Tag("DRV-NET-080")
    @Tag("DRV-NET-081")
    @Tag("DRV-NET-083")
    @Tag("DRV-NET-084")
    void whatTheDeviceCannotIsRefusedByValueAndLimit() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,pairs=2", "net0");
        refused(card, KEY, List.of(0, 1, 0), 0, "table of 3 entries, the limit is 128");
        refused(card, KEY, Collections.nCopies(256, 0), 0, "table of 256 entries");
        refused(card, KEY, List.of(0, 2), 0, "queue pair 2 in a table, limits are 0 and 1");
        refused(card, KEY, List.of(0, -1), 0, "queue pair -1 in a table");
        refused(card, KEY, List.of(0, 1), 2, "queue pair 2 in a table");
        refused(card, new byte[41], List.of(), 0, "hash key of 41 bytes, limits are 1 and 40");
        refused(card, new byte[0], List.of(), 0, "hash key of 0 bytes");
        NetDevice none =
                rig.card("mmio", "loopback:,pairs=2,without=RSS,without=HASH_REPORT", "net1");
        assertEquals(Set.of(), none.hashTypes());
        String said =
                assertThrows(VirtioException.class, () -> none.hash(new HashConfig(ALL, KEY)))
                        .getMessage();
        assertTrue(said.contains("HASH_REPORT is not negotiated"), said);
    }

    private static void refused(
            NetDevice card, byte[] key, List<Integer> table, int unclassified, String reason) {
        HashConfig before = card.hash();
        HashConfig config = new HashConfig(ALL, key, table, unclassified);
        String said =
                assertThrows(IllegalArgumentException.class, () -> card.hash(config)).getMessage();
        assertTrue(said.startsWith(reason), said);
        assertEquals(before, card.hash());
    }

    @Test
    void whatWasSetMovesWithTheCard() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,pairs=2,mac=52:54:00:00:00:01", "net0");
        card.hash(new HashConfig(ALL, KEY, List.of(1, 0), 0));
        List<NetQueue> queues = queues(card);
        Seen before = sent(queues, packet(card.macAddress(), 2794));
        swap("loopback:,pairs=2,mac=52:54:00:00:00:01,without=MQ");
        assertEquals(before, sent(queues, packet(card.macAddress(), 2794)));
        for (String without : new String[] {"RSS", "HASH_REPORT"}) {
            String backend = "loopback:,pairs=2,mac=52:54:00:00:00:01,without=" + without;
            String said = assertThrows(VirtioException.class, () -> swap(backend)).getMessage();
            assertTrue(said.contains(without + " is in use"), said);
        }
        assertEquals(before, sent(queues, packet(card.macAddress(), 2794)));
        // What nobody uses is not missed.
        card.hash(new HashConfig(Set.of(), KEY));
        swap("loopback:,pairs=2,mac=52:54:00:00:00:01,without=RSS,without=HASH_REPORT");
        assertNull(sent(queues, packet(card.macAddress(), 2794)).type());
    }

    /** Queues were made for two, and consumers have two. */
    @ParameterizedTest
    @ValueSource(strings = {"", ",without=MQ"})
    void ofACardWithMorePairsThoseAreUsedThatThereAre(String without) throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,pairs=2,mac=52:54:00:00:00:01", "net0");
        List<NetQueue> queues = queues(card);
        card.hash(new HashConfig(ALL, KEY));
        swap("loopback:,pairs=5,mac=52:54:00:00:00:01" + without);
        assertEquals(2, card.queuePairs());
        everyPacketComes(card, queues);
        refused(card, KEY, List.of(0, 2), 0, "queue pair 2 in a table, limits are 0 and 1");
        card.hash(new HashConfig(Set.of(), new byte[0]));
        everyPacketComes(card, queues);
    }

    private static void everyPacketComes(NetDevice card, List<NetQueue> queues) {
        for (int port = 1; port < 60; port++) {
            sent(queues, packet(card.macAddress(), port));
        }
    }

    private void swap(String backend) throws VirtioException {
        String address = rig.address("mmio");
        rig.core.bus().export(backend, address);
        rig.core.bus().swap("net0", address);
    }
}
