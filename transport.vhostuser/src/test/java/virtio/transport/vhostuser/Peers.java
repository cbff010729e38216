package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** Programs that nobody here wrote, as {@code cnf/peers} has prepared them. */
public final class Peers {
    private Peers() {}

    /** The path of a tool; the test is skipped where there is none. */
    public static String tool(String key) throws IOException {
        String folder =
                Optional.ofNullable(System.getenv("VIRTIO_PEERS"))
                        .orElseGet(
                                () ->
                                        Optional.ofNullable(System.getenv("XDG_CACHE_HOME"))
                                                        .orElse(
                                                                System.getProperty("user.home")
                                                                        + "/.cache")
                                                + "/virtio-peers");
        Path file = Path.of(folder, "peers.properties");
        assumeTrue(Files.exists(file), "no " + file + ": run cnf/peers");
        Properties tools = new Properties();
        try (Reader reader = Files.newBufferedReader(file)) {
            tools.load(reader);
        }
        String path = tools.getProperty(key);
        assumeTrue(path != null, "no " + key + ": run cnf/peers");
        return path;
    }

    /** Runs a tool to its end; what it printed. */
    static String run(List<String> command) throws Exception {
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        process.getOutputStream().close();
        boolean ended = process.waitFor(60, TimeUnit.SECONDS);
        if (!ended) {
            process.destroyForcibly();
        }
        String output = new String(process.getInputStream().readAllBytes());
        if (!ended || process.exitValue() != 0) {
            throw new AssertionError(command + ": " + output);
        }
        return output;
    }

    /** A qemu-storage-daemon that serves a block device on a socket, and answers. */
    static Process storageDaemon(String tool, Path socket, int queues, String... blockdev)
            throws Exception {
        List<String> command = new ArrayList<>(List.of(tool(tool), "--blockdev"));
        command.add(String.join(",", blockdev) + ",node-name=d0");
        command.add("--export");
        command.add(
                "type=vhost-user-blk,id=e0,node-name=d0,addr.type=unix,addr.path="
                        + socket
                        + ",writable=on,num-queues="
                        + queues);
        Process daemon =
                new ProcessBuilder(command)
                        .redirectErrorStream(true)
                        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                        .start();
        await("a socket of " + tool, () -> answers(socket) || !daemon.isAlive());
        return daemon;
    }

    private static boolean answers(Path socket) {
        try {
            FrontEnd.connect("vhost-user:" + socket, socket, 5000).close();
            return true;
        } catch (IOException e) {
            return false;
        }
    }

    /** Looks again and again, for at most 10 seconds. */
    static void await(String what, BooleanSupplier condition) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > end) {
                throw new AssertionError("waited 10 s for " + what);
            }
            Thread.sleep(2);
        }
    }

    /** Waits for the end of a thread that is about to end. */
    static void join(Thread thread) {
        try {
            thread.join(10_000);
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
        if (thread.isAlive()) {
            throw new AssertionError(thread + " lives on");
        }
    }

    /** Descriptors and mappings that are open or in place. */
    static List<Integer> live() {
        return List.of(FileDescriptor.live(), Mapping.live());
    }
}
