package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** The assembled distribution, as processes of its own. */
final class Distribution {
    private static final Path HOME = Path.of(System.getProperty("virtio.distro"));

    private Distribution() {}

    /** What a process ended with. */
    record Outcome(int exit, String out, String err) {}

    /** Runs {@code virtio ARGUMENTS} to its end, with the input given. */
    static Outcome run(int limitSeconds, String input, String... arguments) throws Exception {
        return run(HOME, limitSeconds, input, arguments);
    }

    private static Outcome run(Path home, int limitSeconds, String input, String... arguments)
            throws Exception {
        Path in = Files.createTempFile("virtio", ".in");
        Path out = Files.createTempFile("virtio", ".out");
        Path err = Files.createTempFile("virtio", ".err");
        try {
            Files.writeString(in, input);
            Process process =
                    new ProcessBuilder(command(home, arguments))
                            .redirectInput(in.toFile())
                            .redirectOutput(out.toFile())
                            .redirectError(err.toFile())
                            .start();
            boolean ended = process.waitFor(limitSeconds, TimeUnit.SECONDS);
            if (!ended) {
                process.destroyForcibly().waitFor();
            }
            String said = Files.readString(out);
            String complained = Files.readString(err);
            assertTrue(
                    ended,
                    () ->
                            "%s did not end within %d s, said %s and %s"
                                    .formatted(List.of(arguments), limitSeconds, said, complained));
            return new Outcome(process.exitValue(), said, complained);
        } finally {
            Files.delete(in);
            Files.delete(out);
            Files.delete(err);
        }
    }

    /** {@code virtio -c COMMANDS}. */
    static Outcome commands(String commands) throws Exception {
        return run(60, "", "-c", commands);
    }

    /** The same, from another {@link #home}. */
    static Outcome commands(Path home, String commands) throws Exception {
        return run(home, 60, "", "-c", commands);
    }

    /** A distribution like this one, with one more jar in its {@code deploy/}. */
    static Path home(Path folder, Path jar) throws Exception {
        commands("ls"); // The first start prepares the JVM's cache, from the true folder.
        for (String shared : List.of("bin", "bundle", "conf")) {
            Files.createSymbolicLink(folder.resolve(shared), HOME.resolve(shared).toRealPath());
        }
        Path deploy = Files.createDirectory(folder.resolve("deploy"));
        try (Stream<Path> jars = Files.list(HOME.resolve("deploy"))) {
            for (Path other : jars.toList()) {
                Files.copy(other, deploy.resolve(other.getFileName()));
            }
        }
        Files.copy(jar, deploy.resolve(jar.getFileName()));
        return folder;
    }

    /** {@code virtio} with its shell. */
    static Process start() throws Exception {
        return new ProcessBuilder(command(HOME)).redirectErrorStream(true).start();
    }

    /** A process that serves a backend at a socket until it is destroyed. */
    static Process serve(String backend, Path socket) throws Exception {
        return serve(HOME, backend, "vhost-user:" + socket);
    }

    /** The same from another {@link #home}, at an address. */
    static Process serve(Path home, String backend, String address) throws Exception {
        Process process =
                new ProcessBuilder(
                                command(
                                        home,
                                        "-c",
                                        "export %s %s; serve".formatted(backend, address)))
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start();
        BufferedReader output = process.inputReader();
        CompletableFuture<Boolean> serving =
                CompletableFuture.supplyAsync(
                        () -> output.lines().anyMatch(line -> line.startsWith("serving ")));
        try {
            assertTrue(serving.get(60, TimeUnit.SECONDS), "it ended without serving");
        } catch (Exception | AssertionError e) {
            process.destroyForcibly();
            throw e;
        }
        return process;
    }

    private static List<String> command(Path home, String... arguments) {
        List<String> command = new ArrayList<>(List.of(home + "/bin/virtio"));
        command.addAll(List.of(arguments));
        return command;
    }
}
