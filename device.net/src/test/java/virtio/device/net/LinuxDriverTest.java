package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.net.NetDevice;
import virtio.api.net.NetHeader;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** Linux's virtio_net commands a card of our switch; packets come from a card of our own. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class LinuxDriverTest {
    private static final byte[] KEY = new byte[40];

    /** What classic BPF loads a packet's queue, plus 1, and hash from (linux/filter.h). */
    private static final long QUEUE = 0x1_0000_0000L - 0x1000 + 24;

    private static final long HASH = 0x1_0000_0000L - 0x1000 + 32;

    @TempDir Path folder;
    private Rig rig;
    private NetDevice card;
    private NetQueue queue;
    private UserModeLinux linux;
    private byte[] address;
    private int filters;

    @BeforeEach
    void open() throws Exception {
        UserModeLinux.tool();
        new Random(3).nextBytes(KEY);
        rig = new Rig(folder);
    }

    private void boot(String options) throws Exception {
        card = rig.card("mmio", "switch:lan", "net0");
        queue = card.openQueue(0);
        Path socket = folder.resolve("n.sock");
        rig.core.bus().export("switch:lan,pairs=2" + options, "vhost-user:" + socket);
        linux = UserModeLinux.boot(socket, folder);
        // Nothing of its own is to come in between.
        linux.run("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; true");
        linux.run("ip link set eth0 up");
        String mac = linux.run("cat /sys/class/net/eth0/address").strip();
        address = HexFormat.ofDelimiter(":").parseHex(mac);
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        if (linux != null) {
            linux.close();
        }
        if (queue != null) {
            queue.close();
        }
        if (rig != null) {
            rig.close();
        }
    }

    private long received() throws Exception {
        return linux.number("cat /sys/class/net/eth0/statistics/rx_packets");
    }

    private void awaitReceived(long count) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (received() < count && System.nanoTime() < end) {
            Thread.sleep(10);
        }
        assertEquals(count, received());
    }

    private void send(byte[] packet) {
        Rig.send(queue, Rig.fill(queue, packet));
    }

    private byte[] udp(int port) {
        byte[] packet = NetFeatures.udp(address, card.macAddress(), 30);
        ByteBuffer.wrap(packet).putShort(34, (short) port);
        return packet;
    }

    /** Toeplitz' function, bit by bit. */
    private static int toeplitz(byte[] key, byte[] input) {
        int hash = 0;
        for (int bit = 0; bit < 8 * input.length; bit++) {
            if ((input[bit / 8] >> 7 - bit % 8 & 1) != 0) {
                long window = ByteBuffer.wrap(Arrays.copyOf(key, 48)).getLong(bit / 8);
                hash ^= (int) (window << bit % 8 >>> 32);
            }
        }
        return hash;
    }

    @Test
    void theReferenceIsOne() {
        byte[] key =
                HexFormat.of()
                        .parseHex(
                                "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b4"
                                        + "77cb2da38030f20c6a42b73bbeac01fa");
        byte[] input = HexFormat.of().parseHex("420995bba18e64500aea06e6");
        assertEquals(0x51ccc178, toeplitz(key, input));
    }

    /** Packets of many flows, TCP, UDP and others. */
    private List<byte[]> flows() {
        List<byte[]> flows = new ArrayList<>();
        for (int i = 0; i < 12; i++) {
            byte[] packet = udp(1000 + 17 * i);
            if (i % 3 == 1) {
                packet = NetFeatures.tcp(address, card.macAddress(), 20);
                ByteBuffer.wrap(packet).putShort(36, (short) (3000 + i));
            } else if (i % 3 == 2) {
                packet[23] = 47; // no ports to hash
            }
            ByteBuffer.wrap(packet).putInt(26, 0x0A05_0607 + 0x0101_0100 * i);
            flows.add(packet);
        }
        return flows;
    }

    private static int hash(byte[] key, byte[] packet) {
        boolean ports = packet[23] == 6 || packet[23] == 17;
        return toeplitz(key, Arrays.copyOfRange(packet, 26, ports ? 38 : 34));
    }

    /**
     * A filter in the guest that counts packets with all of the values, by what they are loaded
     * from.
     */
    private void count(Map<Long, Long> values) throws Exception {
        List<String> program = new ArrayList<>();
        int left = 2 * values.size();
        for (Map.Entry<Long, Long> value : values.entrySet()) {
            program.add("32 0 0 " + value.getKey());
            program.add("21 0 %d %d".formatted(--left, value.getValue()));
            left--;
        }
        program.add("6 0 0 4294967295");
        program.add("6 0 0 0");
        linux.run(
                "/sbin/tc filter add dev eth0 ingress pref %d bpf bytecode '%d,%s' action continue"
                        .formatted(++filters, program.size(), String.join(",", program)));
    }

    /** What each filter counted. */
    private List<String> counted() throws Exception {
        return Pattern.compile("Sent \\d+ bytes (\\d+) pkt")
                .matcher(linux.run("/sbin/tc -s filter show dev eth0 ingress"))
                .results()
                .map(match -> match.group(1))
                .toList();
    }

    /**
     * The kernel takes the hash as it is reported, and the queue is the one that its table says.
     *
     * <p>Some versions of Linux send a byte before the key, whose last one is not looked at then:
     * either key will do, as long as it is the same for all.
     */
    @ParameterizedTest
    @CsvSource({
        "'', true, true",
        "',without=MRG_RXBUF', true, true",
        "',without=HASH_REPORT', true, false",
        "',without=RSS', false, true",
    })
    void packetsAreHashedAndSpreadAsTheReferenceSays(
            String options, boolean spread, boolean reported) throws Exception {
        boot(options);
        linux.run("ethtool -L eth0 combined 2");
        if (reported) {
            linux.run("ethtool -K eth0 rxhash on");
            assertTrue(linux.run("ethtool -k eth0").contains("receive-hashing: on"));
        }
        String key = HexFormat.ofDelimiter(":").formatHex(KEY);
        linux.run("ethtool -X eth0 hkey " + key + (spread ? " weight 1 2" : ""));
        String set = linux.run("ethtool -x eth0");
        assertTrue(set.contains(key), set);
        int[] table =
                Pattern.compile("(?m)^ *\\d+:((?: +\\d+)+)$")
                        .matcher(set)
                        .results()
                        .flatMap(row -> Arrays.stream(row.group(1).strip().split(" +")))
                        .mapToInt(Integer::parseInt)
                        .toArray();
        assertEquals(spread ? 128 : 0, table.length, set);
        byte[] late = new byte[KEY.length];
        System.arraycopy(KEY, 0, late, 1, late.length - 1);
        linux.run("/sbin/tc qdisc add dev eth0 ingress");
        List<byte[]> flows = flows();
        for (byte[] sent : List.of(late, KEY)) {
            for (byte[] packet : flows) {
                int hash = hash(sent, packet);
                Map<Long, Long> values = new LinkedHashMap<>();
                values.put(26L, (long) ByteBuffer.wrap(packet).getInt(26));
                if (spread) {
                    values.put(QUEUE, table[hash & 0x7F] + 1L);
                }
                if (reported) {
                    values.put(HASH, hash & 0xFFFF_FFFFL);
                }
                count(values);
            }
        }
        long before = received();
        flows.forEach(this::send);
        awaitReceived(before + flows.size());
        List<String> counts = counted();
        List<String> once = Collections.nCopies(flows.size(), "1");
        assertTrue(
                counts.subList(0, flows.size()).equals(once)
                        || counts.subList(flows.size(), 2 * flows.size()).equals(once),
                counts::toString);
    }

    /** Its commands for notifications: nothing is heard of three packets while four are due. */
    @Test
    void packetsAreHeldBackAsLongAsItSays() throws Exception {
        boot("");
        long before = received();
        send(udp(1));
        awaitReceived(before + 1);
        linux.run("ethtool -C eth0 rx-usecs 60000000 rx-frames 4");
        assertTrue(linux.run("ethtool -c eth0").matches("(?s).*rx-frames:\\s+4\\n.*"));
        for (int i = 0; i < 3; i++) {
            send(udp(1));
        }
        Thread.sleep(300);
        assertEquals(before + 1, received());
        send(udp(1));
        awaitReceived(before + 5);
        // Of one queue, by a command of its own.
        linux.run("ethtool -Q eth0 queue_mask 1 --coalesce rx-usecs 60000000 rx-frames 2");
        send(udp(1));
        Thread.sleep(300);
        assertEquals(before + 5, received());
        send(udp(1));
        awaitReceived(before + 7);
        linux.run("ethtool -C eth0 rx-usecs 0 rx-frames 0");
        send(udp(1));
        awaitReceived(before + 8);
    }

    /** Without the offload the card cuts a large packet up, and the kernel gets it whole before. */
    @Test
    void largePacketsComeWholeUntilItSaysOtherwise() throws Exception {
        boot("");
        long before = received();
        sendLarge();
        awaitReceived(before + 1);
        linux.run("ethtool -K eth0 rx-gro-hw off");
        assertTrue(linux.run("ethtool -k eth0").contains("rx-gro-hw: off"));
        sendLarge();
        awaitReceived(before + 1 + 7);
        linux.run("ethtool -K eth0 rx-gro-hw on");
        sendLarge();
        awaitReceived(before + 1 + 7 + 1);
    }

    private void sendLarge() {
        byte[] packet = NetFeatures.tcp(address, card.macAddress(), 7 * 1448 - 100);
        PacketBuffer frame = Rig.fill(queue, packet);
        frame.requestChecksum(34, 16);
        frame.requestSegmentation(NetHeader.GSO_TCPV4, 1448, 54);
        Rig.send(queue, frame);
    }

    @Test
    void aCardHearsWhatItsDriverWants() throws Exception {
        boot("");
        byte[] old = address;
        byte[] other = {2, 0, 0, 0, 0, 9};
        linux.run("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:09");
        linux.run("ip link set eth0 up");
        long before = received();
        send(udp(1));
        address = other;
        send(udp(2));
        awaitReceived(before + 1);
        linux.run("ip link set eth0 promisc on");
        address = old;
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (received() == before + 1 && System.nanoTime() < end) {
            // Linux says it to the card some time later.
            send(udp(3));
            Thread.sleep(50);
        }
        assertTrue(received() > before + 1);
    }
}
