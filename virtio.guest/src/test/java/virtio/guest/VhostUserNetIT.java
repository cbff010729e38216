package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.BufferedReader;
import java.io.IOException;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Two guests of QEMU's with vhost-user cards, which a container on the host serves: ports of one
 * switch, on which a TAP interface of the host is as well. A second card of guest {@code two} is at
 * the other end of a TAP interface of its own.
 *
 * <p>Guest {@code one} has two queue pairs and mergeable buffers, guest {@code two} packed queues
 * and buffers for the largest packets.
 */
class VhostUserNetIT {
    private static final int BYTES = 4 << 20;
    private static final byte[] DATA = new byte[BYTES];

    /** The largest without offloads. */
    private static final int FRAME = 1514;

    /** A net of its own on the host, where others may run the same. */
    private static final String NET =
            "10.213.%d.".formatted(ProcessHandle.current().pid() % 250 + 1);

    private static final String CABLE_NET = NET.replace(".213.", ".214.");

    private static final String CABLE = "vtc" + ProcessHandle.current().pid() % 1_000_000;
    private static final String TAP = "vtg" + ProcessHandle.current().pid() % 1_000_000;
    private static final ConcurrentLinkedQueue<String> ARRIVED = new ConcurrentLinkedQueue<>();

    @TempDir static Path folder;
    private static Process server;
    private static Guest one;
    private static Guest two;

    /** Frames that the host's interface has got from the guests, and their bytes. */
    private static long hostFrames;

    private static long hostBytes;

    private static final String JOB =
            """
            modprobe virtio_net
            until_ok test -e /sys/class/net/eth0
            ip addr add %1$s%2$d/24 dev eth0
            ip link set eth0 up
            ethernet() { cat /sys/class/net/eth0/statistics/rx_packets \
            /sys/class/net/eth0/statistics/rx_bytes; }
            # talk NAME COMMAND...: what is sent, what has come and in how many frames
            talk() {
                local before after
                before=$(ethernet)
                "$@" < /tmp/out > /tmp/in || return 1
                after=$(ethernet)
                echo "sent $(sha256sum < /tmp/out | cut -d' ' -f1)"
                echo "received $(sha256sum < /tmp/in | cut -d' ' -f1)"
                echo frames $before $after
            }
            head -c %3$d /dev/urandom > /tmp/out
            check features cat /sys/class/net/eth0/device/features
            check queues ls /sys/class/net/eth0/queues
            check ping ping -c 5 -A -W 20 %1$s1
            check large ping -c 5 -A -s 1472 -W 20 %1$s1
            check host talk until_ok nc %1$s1 %4$d
            """;

    @BeforeAll
    static void boot() throws Exception {
        Guest.assumed(
                Files.exists(Path.of("/dev/net/tun")), "no /dev/net/tun: load the module tun");
        Guest.assumed("root".equals(System.getProperty("user.name")), "no TAP interface: not root");
        new Random(42).nextBytes(DATA);
        Path first = folder.resolve("1.sock");
        Path second = folder.resolve("2.sock");
        one =
                card("vhost-user-net-1", first, 2, "mac=52:54:00:00:00:01,mq=on,vectors=6,hash=on")
                        .qemu("-smp", "2");
        two = card("vhost-user-net-2", second, 1, "mac=52:54:00:00:00:02,packed=on,mrg_rxbuf=off");
        Path third = folder.resolve("3.sock");
        two.qemu("-chardev", "socket,id=cable,path=" + third)
                .qemu("-netdev", "vhost-user,id=cable,chardev=cable")
                .qemu("-device", "virtio-net-pci,netdev=cable,mac=52:54:00:00:00:03");
        server =
                serve(
                        "export switch:lan,pairs=2,tap=%s vhost-user:%s".formatted(TAP, first),
                        "export switch:lan vhost-user:" + second,
                        "export tap:%s vhost-user:%s".formatted(CABLE, third));
        for (String name : List.of(TAP, CABLE)) {
            String address = (name.equals(TAP) ? NET : CABLE_NET) + "1/24";
            Image.run(List.of("ip", "addr", "add", address, "dev", name));
            Image.run(List.of("ip", "link", "set", name, "up"));
        }
        try (ServerSocket host = new ServerSocket(0, 8, InetAddress.getByName(NET + "1"))) {
            Thread.ofVirtual().start(() -> answer(host));
            int port = host.getLocalPort();
            one.job(
                    JOB.formatted(NET, 2, BYTES, port)
                            + """
                            echo "@@ one talked"
                            check guest talk nc -l -p 5000
                            read go
                            check interrupts cat /proc/interrupts
                            """);
            two.job(
                    JOB.formatted(NET, 3, BYTES, port)
                            + """
                            ip addr add %2$s2/24 dev eth1
                            ip link set eth1 up
                            check cable ping -c 5 -A -s 1000 -W 20 %2$s1
                            echo "@@ two talked"
                            read go
                            check neighbour ping -c 5 -A -s 1000 -W 20 %1$s2
                            check guest talk until_ok nc %1$s2 5000
                            """
                                    .formatted(NET, CABLE_NET));
            one.boot();
            two.boot();
            one.await("@@ one talked");
            two.await("@@ two talked");
            hostFrames = number("rx_packets");
            hostBytes = number("rx_bytes");
            two.say("go");
            two.end();
            flows();
            one.say("go");
            one.end();
        }
    }

    private static Guest card(String name, Path socket, int pairs, String options)
            throws Exception {
        return Guest.q35(name)
                .qemu("-object", "memory-backend-memfd,id=memory,size=1G,share=on")
                .qemu("-machine", "memory-backend=memory")
                .qemu("-chardev", "socket,id=socket,path=" + socket)
                .qemu("-netdev", "vhost-user,id=net,chardev=socket,queues=" + pairs)
                .qemu("-device", "virtio-net-pci,netdev=net,disable-legacy=on," + options);
    }

    /** A container of the host that serves what is exported. */
    private static Process serve(String... commands) throws IOException {
        Path program = Path.of(System.getProperty("virtio.distro"), "bin/virtio");
        Process process =
                new ProcessBuilder(
                                program.toString(), "-c", String.join("; ", commands) + "; serve")
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start();
        BufferedReader output = process.inputReader();
        String line = output.readLine();
        while (line != null && !line.startsWith("serving ")) {
            line = output.readLine();
        }
        assertTrue(line != null, "it ended without serving");
        return process;
    }

    /** Takes all that a connection brings, and sends as much itself. */
    private static void answer(ServerSocket host) {
        while (!host.isClosed()) {
            try (Socket connection = host.accept()) {
                ARRIVED.add(sha256(connection.getInputStream().readAllBytes()));
                connection.getOutputStream().write(DATA);
            } catch (IOException e) {
                // The guest says what it missed.
            }
        }
    }

    /** Packets of many flows for the first guest. */
    private static void flows() throws IOException {
        for (int i = 0; i < 64; i++) {
            try (DatagramSocket socket = new DatagramSocket()) {
                var to = new InetSocketAddress(NET + "2", 9);
                socket.send(new DatagramPacket(new byte[100], 100, to));
            }
        }
    }

    private static long number(String statistic) throws IOException {
        Path file = Path.of("/sys/class/net", TAP, "statistics", statistic);
        return Long.parseLong(Files.readString(file).strip());
    }

    private static String sha256(byte[] bytes) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError(e);
        }
    }

    @AfterAll
    static void stop() throws Exception {
        if (one != null) {
            one.close();
        }
        if (two != null) {
            two.close();
        }
        if (server != null) {
            server.destroyForcibly().waitFor();
        }
    }

    private static Guest guest(String name) {
        return name.equals("one") ? one : two;
    }

    private static String value(String said, String what) {
        Matcher found = Pattern.compile("(?m)^" + what + " (.*)$").matcher(said);
        assertTrue(found.find(), said);
        return found.group(1);
    }

    @ParameterizedTest
    @ValueSource(strings = {"one", "two"})
    void theHostAnswers(String guest) {
        for (String ping : List.of("ping", "large")) {
            String said = guest(guest).passed(ping);
            assertTrue(said.contains("5 packets transmitted, 5 packets received"), said);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"neighbour", "cable"})
    void theOtherGuestAnswersAndTheHostOnACableOfItsOwn(String ping) {
        String said = two.passed(ping);
        assertTrue(said.contains("5 packets transmitted, 5 packets received"), said);
    }

    /** As numbers of the specification: checksums, TSO, mergeable buffers, queue pairs, packed. */
    @ParameterizedTest
    @CsvSource({
        "one, 0 1 7 8 11 12 15 22 57, 34, rx-0 rx-1 tx-0 tx-1",
        "two, 0 1 7 8 11 12 34, 15 22 57, rx-0 tx-0"
    })
    void featuresAreNegotiated(String guest, String with, String without, String queues) {
        String bits = guest(guest).passed("features");
        for (String bit : with.split(" ")) {
            assertEquals('1', bits.charAt(Integer.parseInt(bit)), () -> bit + " in " + bits);
        }
        for (String bit : without.split(" ")) {
            assertEquals('0', bits.charAt(Integer.parseInt(bit)), () -> bit + " in " + bits);
        }
        assertEquals(queues, guest(guest).passed("queues").replaceAll("\\s+", " "));
    }

    @ParameterizedTest
    @ValueSource(strings = {"one", "two"})
    void aTransferWithTheHostIsWholeBothWays(String guest) {
        String said = guest(guest).passed("host");
        assertEquals(sha256(DATA), value(said, "received"));
        assertTrue(ARRIVED.contains(value(said, "sent")), said);
    }

    @Test
    void aTransferBetweenTheGuestsIsWholeBothWays() {
        String first = one.passed("guest");
        String second = two.passed("guest");
        assertEquals(value(first, "sent"), value(second, "received"));
        assertEquals(value(second, "sent"), value(first, "received"));
    }

    @ParameterizedTest
    @CsvSource({"one, host", "one, guest", "two, host", "two, guest"})
    void largePacketsCome(String guest, String step) {
        long[] counts =
                Arrays.stream(value(guest(guest).passed(step), "frames").split(" "))
                        .mapToLong(Long::parseLong)
                        .toArray();
        long frames = counts[2] - counts[0];
        long bytes = counts[3] - counts[1];
        assertTrue(bytes > BYTES, bytes + " bytes");
        assertTrue(bytes / frames > FRAME, () -> bytes + " bytes in " + frames + " frames");
    }

    @Test
    void largePacketsGoToTheHost() {
        assertTrue(hostBytes > 2 * BYTES, hostBytes + " bytes");
        assertTrue(hostBytes / hostFrames > FRAME, hostBytes + " in " + hostFrames + " frames");
    }

    /** The host's packets are of many flows. */
    @ParameterizedTest
    @ValueSource(strings = {"input.0", "input.1"})
    void bothQueuesReceive(String queue) {
        String said = one.passed("interrupts");
        Matcher line = Pattern.compile("\\d+:((?: +\\d+)+) .*" + queue).matcher(said);
        assertTrue(line.find(), said);
        assertFalse(line.group(1).matches("[ 0]+"), said);
    }
}
