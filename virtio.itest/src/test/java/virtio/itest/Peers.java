package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.Reader;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.TimeUnit;

/** Programs that nobody here wrote, as {@code cnf/peers} has prepared them. */
final class Peers {
    private Peers() {}

    /** The path of a tool; the test is skipped where there is none. */
    static String tool(String key) throws IOException {
        Path file = folder().resolve("peers.properties");
        assumed(Files.exists(file), "no " + file + ": run cnf/peers");
        Properties tools = new Properties();
        try (Reader reader = Files.newBufferedReader(file)) {
            tools.load(reader);
        }
        String path = tools.getProperty(key);
        assumed(path != null, "no " + key + " in " + file + ": run cnf/peers");
        return path;
    }

    /** Maven counts what is skipped, and does not say why. */
    private static void assumed(boolean condition, String reason) {
        if (!condition) {
            System.out.println("skipped: " + reason);
        }
        assumeTrue(condition, reason);
    }

    private static Path folder() {
        return Optional.ofNullable(System.getenv("VIRTIO_PEERS"))
                .map(Path::of)
                .orElseGet(
                        () ->
                                Optional.ofNullable(System.getenv("XDG_CACHE_HOME"))
                                        .map(Path::of)
                                        .orElse(Path.of(System.getProperty("user.home"), ".cache"))
                                        .resolve("virtio-peers"));
    }

    /** Runs a tool to its successful end; what it printed. */
    static String run(String... command) throws Exception {
        Path output = Files.createTempFile("peer", ".log");
        try {
            Process process =
                    new ProcessBuilder(command)
                            .redirectErrorStream(true)
                            .redirectOutput(output.toFile())
                            .start();
            process.getOutputStream().close();
            boolean ended = process.waitFor(90, TimeUnit.SECONDS);
            if (!ended) {
                process.destroyForcibly().waitFor();
            }
            String said = Files.readString(output);
            assertTrue(ended, () -> List.of(command) + " did not end: " + said);
            assertTrue(process.exitValue() == 0, () -> List.of(command) + ": " + said);
            return said;
        } finally {
            Files.delete(output);
        }
    }

    /** A qemu-storage-daemon that serves a block device on a socket, and answers. */
    static Process storageDaemon(Path socket, int queues, String blockdev) throws Exception {
        List<String> command = new ArrayList<>(List.of(tool("qemu_storage_daemon")));
        command.addAll(List.of("--blockdev", blockdev + ",node-name=d0", "--export"));
        command.add(
                "type=vhost-user-blk,id=e0,node-name=d0,addr.type=unix,addr.path="
                        + socket
                        + ",writable=on,num-queues="
                        + queues);
        Process daemon =
                new ProcessBuilder(command)
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                        .start();
        Wait.until("an answer at " + socket, () -> !daemon.isAlive() || answers(socket));
        assertTrue(daemon.isAlive(), "the daemon ended");
        return daemon;
    }

    static boolean answers(Path socket) {
        try (SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX)) {
            return channel.connect(UnixDomainSocketAddress.of(socket));
        } catch (IOException e) {
            return false;
        }
    }
}
