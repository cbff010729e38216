package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;

import virtio.transport.vhostuser.Peers;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Linux as a process, with a card of ours as its {@code eth0}: virtio_net over virtio_uml, a
 * vhost-user front-end that leaves the control queue to the back-end.
 */
final class UserModeLinux implements AutoCloseable {
    private final Process process;
    private final BlockingQueue<String> said = new LinkedBlockingQueue<>();
    private final List<String> all = new ArrayList<>();

    private UserModeLinux(List<String> command) throws IOException {
        process = new ProcessBuilder(command).redirectErrorStream(true).start();
        Thread.ofPlatform()
                .daemon()
                .start(
                        () -> {
                            try (BufferedReader lines = process.inputReader()) {
                                lines.lines().map(String::strip).forEach(said::add);
                            } catch (IOException e) {
                                // It has ended.
                            }
                        });
    }

    /** Where it is; the test is skipped where it is not. */
    static String tool() throws IOException {
        return Peers.tool("linux_uml");
    }

    /** Boots with the card at a socket; a folder is for what it leaves behind. */
    static UserModeLinux boot(Path socket, Path folder) throws Exception {
        Path own = Files.createTempDirectory(folder, "uml");
        UserModeLinux linux =
                new UserModeLinux(
                        List.of(
                                tool(),
                                "mem=96M",
                                "con=null",
                                "con0=fd:0,fd:1",
                                "quiet",
                                "panic=-1",
                                "uml_dir=" + own + "/",
                                "virtio_uml.device=" + socket + ":1"));
        try {
            linux.await("@@ up");
            return linux;
        } catch (Exception | AssertionError e) {
            linux.close();
            throw e;
        }
    }

    /** Runs a line of shell, which has to succeed; what it prints. */
    String run(String line) throws Exception {
        process.getOutputStream().write((line + "\n").getBytes());
        process.getOutputStream().flush();
        List<String> lines = await("@@ done ");
        String output = String.join("\n", lines.subList(0, lines.size() - 1));
        assertEquals("@@ done 0", lines.getLast(), () -> line + ": " + output);
        return output;
    }

    /** A number that a line of shell prints. */
    long number(String line) throws Exception {
        return Long.parseLong(run(line).strip());
    }

    /** What is said up to a line that starts so. */
    private List<String> await(String start) throws Exception {
        List<String> lines = new ArrayList<>();
        while (lines.isEmpty() || !lines.getLast().startsWith(start)) {
            String line = said.poll(20, TimeUnit.SECONDS);
            if (line == null) {
                throw new AssertionError("no '" + start + "' in " + all);
            }
            all.add(line);
            lines.add(line);
        }
        return lines;
    }

    @Override
    public void close() {
        // Its programs are processes of the host.
        process.descendants().forEach(ProcessHandle::destroyForcibly);
        process.destroyForcibly().onExit().join();
    }

    @Override
    public String toString() {
        return String.join("\n", all);
    }
}
