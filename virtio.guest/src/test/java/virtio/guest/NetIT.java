package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.guest.hashes.Hashes;
import virtio.guest.stack.SmallStack;

import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * QEMU's virtio-net behind an MMIO window and behind PCI, each with QEMU's user network: its
 * gateway gives addresses, answers and connects to this process.
 */
class NetIT {
    private static final String GATEWAY = "10.0.2.2";
    private static final byte[] DATA = new byte[SmallStack.BYTES];
    private static final ConcurrentLinkedQueue<String> ARRIVED = new ConcurrentLinkedQueue<>();
    private static final byte[] KEY = new byte[40];
    private static final int FLOWS = 16;
    private static final String NET =
            "10.215.%d.".formatted(ProcessHandle.current().pid() % 250 + 1);

    private static final String TAP_OPTIONS =
            "tap,id=tap,ifname=%s,script=no,downscript=no,queues=2";

    /** Null where there can be none. */
    private static final String TAP =
            Files.exists(Path.of("/dev/net/tun")) && "root".equals(System.getProperty("user.name"))
                    ? "vtq" + ProcessHandle.current().pid() % 1_000_000
                    : null;

    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest = Guest.microvm("net").limit(400);
        new Random(42).nextBytes(DATA);
        new Random(43).nextBytes(KEY);
        try (ServerSocket server = new ServerSocket(0, 8, InetAddress.getLoopbackAddress())) {
            Thread.ofVirtual().start(() -> serve(server));
            for (String card : List.of("mmio", "packed", "pci")) {
                guest.qemu("-netdev", "user,id=%s,restrict=off".formatted(card));
            }
            guest.qemu("-device", "virtio-net-device,netdev=mmio");
            guest.qemu("-device", "virtio-net-device,netdev=packed,packed=on,mrg_rxbuf=off");
            guest.qemu("-device", "virtio-net-pci,netdev=pci,disable-legacy=on,rss=on");
            if (TAP != null) {
                guest.qemu("-netdev", TAP_OPTIONS.formatted(TAP));
                guest.qemu(
                        "-device",
                        "virtio-net-pci,netdev=tap,disable-legacy=on,mac=52:54:00:00:00:01,"
                                + "mq=on,vectors=6,rss=on,hash=on");
            }
            guest.bundle(Hashes.class, "org.osgi.framework,virtio.api,virtio.api.net");
            guest.bundle(SmallStack.class, "org.osgi.framework,virtio.api,virtio.api.net");
            guest.job(
                    """
                    hugepages 60
                    modprobe vfio enable_unsafe_noiommu_mode=1
                    modprobe vfio-pci
                    modprobe uio_pdrv_genirq
                    rebind pci 0000:00:01.0 vfio-pci
                    [ ! -e /sys/bus/pci/devices/0000:00:02.0 ] || rebind pci 0000:00:02.0 vfio-pci
                    check bind rebind platform LNRO0005:00 uio_pdrv_genirq
                    check talk container "attach mmio:0xfeb02e00 --name=mmio; talk mmio %1$d; \
                    attach mmio:0xfeb02c00 --name=packed; talk packed %1$d; \
                    attach pci:0000:00:01.0 --name=pci; hash pci --types=all; \
                    talk pci %1$d; show mmio; show pci%2$s"
                    """
                            .formatted(server.getLocalPort(), TAP == null ? "" : hashed()));
            if (TAP == null) {
                guest.run();
            } else {
                guest.boot();
                send();
                guest.end();
            }
        }
    }

    /** The commands for the card at the TAP interface. */
    private static String hashed() {
        String key = HexFormat.of().formatHex(KEY);
        return "; detach pci; attach pci:0000:00:02.0 --name=tap"
                + "; hash tap --types=all --table=0,1,1,0 --key=%s; hashes tap %d"
                        .formatted(key, FLOWS);
    }

    /** Packets of many flows from the host to the card at its TAP interface. */
    private static void send() throws Exception {
        Image.run(List.of("ip", "addr", "add", NET + "1/24", "dev", TAP));
        Image.run(List.of("ip", "link", "set", TAP, "up"));
        String to = NET + "2";
        Image.run(List.of("ip", "neigh", "add", to, "lladdr", "52:54:00:00:00:01", "dev", TAP));
        guest.await("tap listens");
        for (int i = 0; i < FLOWS / 2; i++) {
            try (DatagramSocket socket = new DatagramSocket();
                    SocketChannel connection = SocketChannel.open()) {
                var address = new InetSocketAddress(to, 1000 + i);
                socket.send(new DatagramPacket(new byte[100], 100, address));
                connection.configureBlocking(false);
                connection.connect(address);
            }
        }
    }

    /** Takes as much from each connection as the stack sends, and sends as much itself. */
    private static void serve(ServerSocket server) {
        while (!server.isClosed()) {
            try (Socket connection = server.accept()) {
                InputStream in = connection.getInputStream();
                ARRIVED.add(sha256(in.readNBytes(SmallStack.BYTES)));
                connection.getOutputStream().write(DATA);
                connection.shutdownOutput();
                in.readAllBytes(); // Until it was received.
            } catch (IOException e) {
                // The guest says what it missed.
            }
        }
    }

    private static String sha256(byte[] bytes) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError(e);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"mmio", "packed", "pci"})
    void aCardTalksToTheGateway(String card) {
        String said = guest.step("talk").output();
        assertTrue(said.contains(card + ": DHCP gives 10.0.2.15 by " + GATEWAY), said);
        assertTrue(said.contains(card + ": ARP says " + GATEWAY + " is at 52:55:"), said);
        assertTrue(said.contains(card + ": echoes of 0, 1, 56 and 1400 bytes came back"), said);
    }

    /** It cannot report hashes here: its user network takes none of the longer headers. */
    @Test
    void qemuTakesWhatIsToBeHashed() {
        String said = guest.passed("talk");
        assertTrue(said.contains("pci hashes [IPV4, TCPV4, UDPV4, IPV6, TCPV6, UDPV6"), said);
    }

    /** At a TAP interface it can: what it reports are Toeplitz' hashes of addresses and ports. */
    @Test
    void qemuReportsHashes() {
        Guest.assumed(TAP != null, "no TAP interface: not root, or no /dev/net/tun");
        String said = guest.passed("talk");
        Matcher report = Pattern.compile("hashed (\\w{24}) (\\w+) (\\w{8}) on (\\d)").matcher(said);
        Set<String> flows = new HashSet<>();
        Set<String> types = new HashSet<>();
        while (report.find()) {
            flows.add(report.group(1));
            types.add(report.group(2));
            int expected = toeplitz(HexFormat.of().parseHex(report.group(1)));
            assertEquals("%08x".formatted(expected), report.group(3), report.group());
            String pair = (expected & 3) == 1 || (expected & 3) == 2 ? "1" : "0";
            assertEquals(pair, report.group(4), report.group());
        }
        assertEquals(FLOWS, flows.size(), said);
        assertEquals(Set.of("TCPV4", "UDPV4"), types, said);
    }

    private static int toeplitz(byte[] input) {
        BigInteger key = new BigInteger(1, KEY);
        int hash = 0;
        for (int bit = 0; bit < Byte.SIZE * input.length; bit++) {
            if ((input[bit / Byte.SIZE] & 0x80 >>> bit % Byte.SIZE) != 0) {
                hash ^= key.shiftRight(Byte.SIZE * KEY.length - Integer.SIZE - bit).intValue();
            }
        }
        return hash;
    }

    @ParameterizedTest
    @ValueSource(strings = {"mmio", "packed", "pci"})
    void aTcpTransferIsWholeBothWays(String card) {
        String said = guest.passed("talk");
        byte[] sent = new byte[SmallStack.BYTES];
        new Random(SmallStack.BYTES).nextBytes(sent);
        assertEquals(3, ARRIVED.stream().filter(sha256(sent)::equals).count(), ARRIVED::toString);
        String line = "%s: TCP sent %s, received %s".formatted(card, sha256(sent), sha256(DATA));
        assertTrue(said.contains(line), said);
    }
}
