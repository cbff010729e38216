package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.guest.stack.SmallStack;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;

/**
 * QEMU's virtio-net behind an MMIO window and behind PCI, each with QEMU's user network: its
 * gateway gives addresses, answers and connects to this process.
 */
class NetIT {
    private static final String GATEWAY = "10.0.2.2";
    private static final byte[] DATA = new byte[SmallStack.BYTES];
    private static final ConcurrentLinkedQueue<String> ARRIVED = new ConcurrentLinkedQueue<>();
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest = Guest.microvm("net").limit(400);
        new Random(42).nextBytes(DATA);
        try (ServerSocket server = new ServerSocket(0, 8, InetAddress.getLoopbackAddress())) {
            Thread.ofVirtual().start(() -> serve(server));
            for (String card : List.of("mmio", "packed", "pci")) {
                guest.qemu("-netdev", "user,id=%s,restrict=off".formatted(card));
            }
            guest.qemu("-device", "virtio-net-device,netdev=mmio");
            guest.qemu("-device", "virtio-net-device,netdev=packed,packed=on,mrg_rxbuf=off");
            guest.qemu("-device", "virtio-net-pci,netdev=pci,disable-legacy=on,rss=on");
            guest.bundle(SmallStack.class, "org.osgi.framework,virtio.api,virtio.api.net");
            guest.job(
                    """
                    hugepages 60
                    modprobe vfio enable_unsafe_noiommu_mode=1
                    modprobe vfio-pci
                    modprobe uio_pdrv_genirq
                    rebind pci 0000:00:01.0 vfio-pci
                    check bind rebind platform LNRO0005:00 uio_pdrv_genirq
                    check talk container "attach mmio:0xfeb02e00 --name=mmio; talk mmio %1$d; \
                    attach mmio:0xfeb02c00 --name=packed; talk packed %1$d; \
                    attach pci:0000:00:01.0 --name=pci; hash pci --types=all; \
                    talk pci %1$d; show mmio; show pci"
                    """
                            .formatted(server.getLocalPort()));
            guest.run();
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
