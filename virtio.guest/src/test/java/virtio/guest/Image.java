package virtio.guest;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import java.util.zip.CRC32C;

/**
 * What a guest boots from: the root that {@code cnf/guest} prepared, then the distribution, then
 * the test's own files, as archives one behind the other.
 */
final class Image {
    private static final String DISTRIBUTION = System.getProperty("virtio.distro");

    private final Path folder;
    private final Path files;

    /** What the paths of its own machine begin with. */
    private final String machine;

    /** For a PC. */
    Image(Path folder, String name) throws IOException {
        this(folder, name, "");
    }

    private Image(Path folder, String name, String machine) throws IOException {
        this.folder = folder;
        this.machine = machine;
        Guest.assumed(Files.exists(properties()), "no " + properties() + ": run cnf/guest");
        Guest.assumed(Files.exists(Path.of(DISTRIBUTION)), "no distribution in " + DISTRIBUTION);
        files = folder.resolve(name);
        delete(files);
        Files.createDirectories(files);
        try (InputStream init = Image.class.getResourceAsStream("init")) {
            put("/init", init.readAllBytes());
        }
        Files.setPosixFilePermissions(
                files.resolve("init"), PosixFilePermissions.fromString("rwxr-xr-x"));
    }

    /** For a 64-bit ARM machine. */
    static Image arm64(Path folder, String name) throws IOException {
        return new Image(folder, name, "arm64.");
    }

    /** A path that {@code cnf/guest} wrote down for the machine. */
    String machine(String key) throws IOException {
        return prepared(machine + key);
    }

    /** A path that {@code cnf/guest} wrote down. */
    String tool(String key) throws IOException {
        return prepared(key);
    }

    static String prepared(String key) throws IOException {
        Guest.assumed(Files.exists(properties()), "no " + properties() + ": run cnf/guest");
        Properties prepared = new Properties();
        try (Reader reader = Files.newBufferedReader(properties())) {
            prepared.load(reader);
        }
        String path = prepared.getProperty(key);
        Guest.assumed(path != null, "no " + key + " in " + properties() + ": run cnf/guest");
        return path;
    }

    private static Path properties() {
        return Optional.ofNullable(System.getenv("VIRTIO_GUEST"))
                .map(Path::of)
                .orElseGet(
                        () ->
                                Optional.ofNullable(System.getenv("XDG_CACHE_HOME"))
                                        .map(Path::of)
                                        .orElse(Path.of(System.getProperty("user.home"), ".cache"))
                                        .resolve("virtio-guest"))
                .resolve("guest.properties");
    }

    /** A file at an absolute path in the guest. */
    void put(String path, byte[] content) throws IOException {
        Path file = files.resolve(path.substring(1));
        Files.createDirectories(file.getParent());
        Files.write(file, content);
    }

    /** The archives in one file, in that folder. */
    Path write(Path into) throws Exception {
        Path archive = into.resolve("initrd");
        Files.copy(Path.of(machine("initramfs")), archive);
        try (OutputStream end = Files.newOutputStream(archive, StandardOpenOption.APPEND)) {
            Files.copy(distribution(), end);
            Path own = into.resolve("own");
            pack(files, own);
            Files.copy(own, end);
        }
        return archive;
    }

    /**
     * The distribution, made once for all guests: with a JVM's cache for the runtime, where that
     * runs on this machine.
     */
    private Path distribution() throws Exception {
        synchronized (Image.class) {
            Path archive = folder.resolve(machine + "distribution.cpio");
            Path stamp = folder.resolve(machine + "distribution.stamp");
            String state = state();
            if (Files.exists(stamp) && Files.readString(stamp).equals(state)) {
                return archive;
            }
            Path root = folder.resolve(machine + "distribution");
            delete(root);
            Path home = root.resolve("opt/virtio");
            try (Stream<Path> found = Files.walk(Path.of(DISTRIBUTION))) {
                for (Path file : found.toList()) {
                    Path relative = Path.of(DISTRIBUTION).relativize(file);
                    if (relative.startsWith("bench") || relative.toString().endsWith(".aot")) {
                        continue;
                    }
                    Path copy = home.resolve(relative);
                    Files.createDirectories(copy.getParent());
                    // With its time, which the cache is good for.
                    Files.copy(file, copy, StandardCopyOption.COPY_ATTRIBUTES);
                }
            }
            Files.writeString(
                    home.resolve("conf/config.properties"),
                    "\nvirtio.exec.timeoutSeconds=200\n",
                    StandardOpenOption.APPEND);
            if (machine.isEmpty()) {
                ProcessBuilder first =
                        new ProcessBuilder(home.resolve("bin/virtio").toString(), "-c", "ls");
                first.environment().put("JAVA_HOME", tool("jre"));
                run(first);
            }
            pack(root, archive);
            Files.writeString(stamp, state);
            return archive;
        }
    }

    /** What the distribution consists of. */
    private String state() throws IOException {
        StringBuilder state = new StringBuilder(tool("recipe"));
        try (Stream<Path> found = Files.walk(Path.of(DISTRIBUTION))) {
            for (Path file : found.filter(Files::isRegularFile).sorted().toList()) {
                if (!file.toString().matches(".*\\.(aot|log)")) {
                    state.append('\n').append(file).append(' ').append(checksum(file));
                }
            }
        }
        return state.toString();
    }

    private static long checksum(Path file) throws IOException {
        var sum = new CRC32C();
        sum.update(Files.readAllBytes(file));
        return sum.getValue();
    }

    private void pack(Path root, Path archive) throws Exception {
        List<String> command =
                List.of(
                        "sh",
                        "-c",
                        "cd \"$1\" && find . | \"$2\" cpio -o -H newc -R 0:0 > \"$3\"",
                        "pack",
                        root.toString(),
                        tool("busybox"),
                        archive.toString());
        run(command);
    }

    /** Runs a program to its successful end; what it printed. */
    static String run(List<String> command) throws Exception {
        return run(new ProcessBuilder(command));
    }

    private static String run(ProcessBuilder builder) throws Exception {
        Path output = Files.createTempFile("guest", ".log");
        try {
            Process process =
                    builder.redirectErrorStream(true).redirectOutput(output.toFile()).start();
            process.getOutputStream().close();
            boolean ended = process.waitFor(120, TimeUnit.SECONDS);
            if (!ended) {
                process.destroyForcibly().waitFor();
            }
            String said = Files.readString(output);
            if (!ended || process.exitValue() != 0) {
                throw new AssertionError(
                        builder.command() + (ended ? " failed: " : " did not end: ") + said);
            }
            return said;
        } finally {
            Files.delete(output);
        }
    }

    private static void delete(Path folder) throws IOException {
        if (Files.exists(folder)) {
            try (Stream<Path> found = Files.walk(folder)) {
                for (Path file : found.sorted(Comparator.reverseOrder()).toList()) {
                    Files.delete(file);
                }
            }
        }
    }
}
