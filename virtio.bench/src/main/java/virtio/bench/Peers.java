package virtio.bench;

import java.io.IOException;
import java.io.Reader;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.TimeUnit;

/** Programs to measure against, as {@code cnf/peers} prepared them. */
final class Peers {
    private static final long START_TIMEOUT_MILLIS = 10_000;

    private final Path file;
    private final Properties tools = new Properties();

    Peers() throws IOException {
        String cache = System.getenv("XDG_CACHE_HOME");
        if (cache == null) {
            cache = System.getProperty("user.home") + "/.cache";
        }
        String folder = System.getenv("VIRTIO_PEERS");
        file = Path.of(folder == null ? cache + "/virtio-peers" : folder, "peers.properties");
        if (!Files.exists(file)) {
            throw new IOException("no %s: run cnf/peers, which prepares it".formatted(file));
        }
        try (Reader reader = Files.newBufferedReader(file)) {
            tools.load(reader);
        }
    }

    String tool(String key) throws IOException {
        String path = tools.getProperty(key);
        if (path == null || !Files.isExecutable(Path.of(path))) {
            throw new IOException(
                    "no %s in %s: run cnf/peers, which prepares it".formatted(key, file));
        }
        return path;
    }

    /** As "1.5.0"; "?" when the library is not where it was unpacked. */
    String libblkioVersion() throws IOException {
        Path libraries = file.resolveSibling("trixie/usr/lib");
        if (Files.isDirectory(libraries)) {
            try (DirectoryStream<Path> machines = Files.newDirectoryStream(libraries)) {
                for (Path machine : machines) {
                    Path library = machine.resolve("libblkio.so.1");
                    if (Files.isSymbolicLink(library)) {
                        String name = Files.readSymbolicLink(library).toString();
                        return name.substring(name.indexOf(".so.") + 4);
                    }
                }
            }
        }
        return "?";
    }

    /** The first line that {@code qemu-storage-daemon --version} says. */
    String storageDaemonVersion() throws Exception {
        return output(10, List.of(tool("qemu_storage_daemon"), "--version"))
                .lines()
                .findFirst()
                .orElse("qemu-storage-daemon");
    }

    /** A qemu-storage-daemon that serves a disk without storage, on one processor. */
    Process storageDaemon(Path socket, int cpu) throws Exception {
        List<String> command = new ArrayList<>();
        command.addAll(List.of("taskset", "-c", Integer.toString(cpu)));
        command.add(tool("qemu_storage_daemon"));
        command.add("--blockdev");
        command.add("driver=null-co,size=1073741824,read-zeroes=off,node-name=d0");
        command.add("--export");
        command.add(
                "type=vhost-user-blk,id=e0,node-name=d0,writable=on,num-queues=1"
                        + ",addr.type=unix,addr.path="
                        + socket);
        Process daemon =
                new ProcessBuilder(command)
                        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start();
        long end = System.nanoTime() + START_TIMEOUT_MILLIS * 1_000_000;
        while (!listens(socket)) {
            if (!daemon.isAlive() || System.nanoTime() > end) {
                daemon.destroyForcibly();
                throw new IOException(
                        "qemu-storage-daemon did not listen on %s within %d ms"
                                .formatted(socket, START_TIMEOUT_MILLIS));
            }
            Thread.sleep(5);
        }
        return daemon;
    }

    private static boolean listens(Path socket) {
        try (SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX)) {
            return channel.connect(UnixDomainSocketAddress.of(socket));
        } catch (IOException e) {
            return false;
        }
    }

    /** Runs a program to its end; what it printed. */
    static String output(long timeoutSeconds, List<String> command) throws Exception {
        Process process =
                new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        try {
            process.getOutputStream().close();
            boolean ended = process.waitFor(timeoutSeconds, TimeUnit.SECONDS);
            if (!ended || process.exitValue() != 0) {
                throw new IOException(
                        "%s %s"
                                .formatted(
                                        String.join(" ", command),
                                        ended ? "failed" : "takes over " + timeoutSeconds + " s"));
            }
            return new String(process.getInputStream().readAllBytes());
        } finally {
            process.destroyForcibly();
        }
    }
}
