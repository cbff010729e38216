package virtio.bench;

import java.io.BufferedReader;
import java.io.IOException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Shell commands in a container of another process. */
final class Command implements AutoCloseable {
    private static final long TIMEOUT_SECONDS = 60;

    private final Process process;
    private final BufferedReader output;

    private Command(Process process) {
        this.process = process;
        output = process.inputReader();
    }

    static Command start(String commands) throws IOException {
        String launcher = Container.home().resolve("bin/virtio").toString();
        return new Command(
                new ProcessBuilder(launcher, "-c", commands)
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start());
    }

    /** The launcher becomes the JVM, so it is the container's. */
    long pid() {
        return process.pid();
    }

    /** Returns when the commands have printed a line that begins so. */
    void awaitLine(String beginning) throws Exception {
        CompletableFuture<Boolean> seen = CompletableFuture.supplyAsync(() -> read(beginning));
        try {
            if (!seen.get(TIMEOUT_SECONDS, TimeUnit.SECONDS)) {
                throw new IOException("the second process ended early");
            }
        } catch (TimeoutException e) {
            process.destroyForcibly();
            throw new IOException(
                    "the second process did not say \"%s\" within %d s"
                            .formatted(beginning, TIMEOUT_SECONDS),
                    e);
        }
    }

    private boolean read(String beginning) {
        try {
            for (String line = output.readLine(); line != null; line = output.readLine()) {
                if (line.startsWith(beginning)) {
                    return true;
                }
            }
        } catch (IOException e) {
            // It was killed.
        }
        return false;
    }

    @Override
    public void close() {
        process.destroy();
        try {
            process.onExit().get(TIMEOUT_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException | ExecutionException | TimeoutException e) {
            process.destroyForcibly();
        }
    }
}
