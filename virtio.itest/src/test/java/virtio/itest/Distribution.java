package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** The assembled distribution, as processes of its own. */
final class Distribution {
    private static final String START = System.getProperty("virtio.distro") + "/bin/virtio";

    private Distribution() {}

    /** What a process ended with. */
    record Outcome(int exit, String out, String err) {}

    /** Runs {@code virtio ARGUMENTS} to its end, with the input given. */
    static Outcome run(int limitSeconds, String input, String... arguments) throws Exception {
        Path in = Files.createTempFile("virtio", ".in");
        Path out = Files.createTempFile("virtio", ".out");
        Path err = Files.createTempFile("virtio", ".err");
        try {
            Files.writeString(in, input);
            Process process =
                    new ProcessBuilder(command(arguments))
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

    /** {@code virtio} with its shell. */
    static Process start() throws Exception {
        return new ProcessBuilder(command()).redirectErrorStream(true).start();
    }

    /** A process that serves a backend at a socket until it is destroyed. */
    static Process serve(String backend, Path socket) throws Exception {
        Process process =
                new ProcessBuilder(
                                command(
                                        "-c",
                                        "export %s vhost-user:%s; serve"
                                                .formatted(backend, socket)))
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

    private static List<String> command(String... arguments) {
        List<String> command = new ArrayList<>(List.of(START));
        command.addAll(List.of(arguments));
        return command;
    }
}
