package virtio.device.net;

import virtio.transport.vhostuser.Peers;

import java.io.BufferedReader;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** DPDK's testpmd with one vhost-user port, at either end. */
final class Testpmd implements AutoCloseable {
    private final Process process;
    private final StringBuilder said = new StringBuilder();
    private final Thread reader;

    private Testpmd(List<String> command) throws IOException {
        process = new ProcessBuilder(command).redirectErrorStream(true).start();
        reader =
                Thread.ofPlatform()
                        .daemon()
                        .start(
                                () -> {
                                    try (BufferedReader lines = process.inputReader()) {
                                        for (int c = lines.read(); c >= 0; c = lines.read()) {
                                            synchronized (said) {
                                                said.append((char) c);
                                                said.notifyAll();
                                            }
                                        }
                                    } catch (IOException e) {
                                        // It has ended.
                                    }
                                });
    }

    /** Where the program is; the test is skipped where it is not. */
    static String tool() throws IOException {
        return Peers.tool("dpdk_testpmd");
    }

    /**
     * Starts it.
     *
     * @param vdev its port, as {@code net_vhost0,iface=/tmp/n.sock,queues=1}
     * @param options what follows for testpmd itself
     */
    static Testpmd start(String vdev, String... options) throws Exception {
        List<String> command =
                new ArrayList<>(
                        List.of(
                                // Or it would keep to itself what it says to a pipe.
                                "stdbuf",
                                "-oL",
                                tool(),
                                "--lcores=0@0,1@0",
                                "--main-lcore=0",
                                "--no-huge",
                                "-m",
                                "256",
                                "--no-pci",
                                "--no-telemetry",
                                "--file-prefix=virtio-" + UUID.randomUUID(),
                                "--vdev",
                                vdev,
                                "--",
                                "-i",
                                "--total-num-mbufs=16384"));
        command.addAll(List.of(options));
        Testpmd testpmd = new Testpmd(command);
        testpmd.await("testpmd> ", 0);
        return testpmd;
    }

    /** Has it do something; what it says up to what is waited for. */
    String command(String line, String until) throws Exception {
        int from;
        synchronized (said) {
            from = said.length();
        }
        process.getOutputStream().write((line + "\n").getBytes());
        process.getOutputStream().flush();
        return await(until, from);
    }

    /** What it said from a position on, up to what is waited for. */
    private String await(String what, int from) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        synchronized (said) {
            while (said.indexOf(what, from) < 0) {
                long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
                if (left <= 0 || !process.isAlive() && !reader.isAlive()) {
                    throw new AssertionError("testpmd did not say '" + what + "': " + said);
                }
                said.wait(Math.min(left, 100));
            }
            return said.substring(from);
        }
    }

    /** A counter of its port, as {@code RX-packets}. */
    long count(String counter) throws Exception {
        String stats = command("show port stats 0", "Tx-bps");
        Matcher found = Pattern.compile(counter + ": *(\\d+)").matcher(stats);
        if (!found.find()) {
            throw new AssertionError("no " + counter + ": " + said);
        }
        return Long.parseLong(found.group(1));
    }

    @Override
    public void close() throws IOException {
        process.getOutputStream().close();
        process.destroyForcibly();
        process.onExit().join();
    }

    @Override
    public String toString() {
        synchronized (said) {
            return said.toString();
        }
    }
}
