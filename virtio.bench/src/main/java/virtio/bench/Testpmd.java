package virtio.bench;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * DPDK's testpmd with one vhost-user port and one forwarding thread, all on one processor. Its
 * threads sleep while it does not forward.
 */
final class Testpmd implements AutoCloseable {
    static final int BURST = 32;

    /** Name of the thread that forwards. */
    static final String WORKER = "rte-worker-1";

    private static final long TIMEOUT_SECONDS = 30;
    private static final Pattern VERSION = Pattern.compile("RTE Version: '(.*)'");
    private static final Pattern FEATURES =
            Pattern.compile("negotiated Virtio features: (0x[0-9a-f]+)");
    private static final Pattern COUNTER = Pattern.compile("(RX|TX)-packets: *(\\d+)");

    private final Process process;
    private final StringBuilder said = new StringBuilder();
    private final Thread reader;

    private Testpmd(List<String> command) throws IOException {
        process = new ProcessBuilder(command).redirectErrorStream(true).start();
        reader = Thread.ofPlatform().daemon().start(this::read);
    }

    /** The device's end, on a socket of that path. */
    static Testpmd backEnd(String tool, Path socket, int cpu) throws Exception {
        return start(tool, "net_vhost0,iface=%s,queues=1".formatted(socket), cpu);
    }

    /** The driver's end, with mergeable buffers, of a device that is there. */
    static Testpmd frontEnd(String tool, Path socket, boolean packed, int cpu) throws Exception {
        return start(
                tool,
                "net_virtio_user0,path=%s,queues=1,queue_size=%d,mrg_rxbuf=1,in_order=0,packed_vq=%d"
                        .formatted(socket, NetTraffic.RING_SIZE, packed ? 1 : 0),
                cpu);
    }

    private static Testpmd start(String tool, String vdev, int cpu) throws Exception {
        List<String> command = new ArrayList<>();
        // Or it would keep to itself what it says to a pipe.
        command.addAll(List.of("stdbuf", "-oL", tool));
        command.addAll(List.of("--lcores=0@%d,1@%d".formatted(cpu, cpu), "--main-lcore=0"));
        // Ordinary pages, as our own side has.
        command.addAll(List.of("--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "-v"));
        command.add("--file-prefix=virtio-" + UUID.randomUUID());
        command.addAll(List.of("--vdev", vdev, "--", "-i", "--total-num-mbufs=16384"));
        // A port that receives at full rate is never empty, and would be flushed for seconds.
        command.addAll(List.of("--no-flush-rx", "--burst=" + BURST));
        Testpmd testpmd = new Testpmd(command);
        try {
            testpmd.await("testpmd> ", 0);
        } catch (IOException e) {
            testpmd.close();
            throw e;
        }
        return testpmd;
    }

    /** As "DPDK 22.11.4". */
    String version() {
        return last(VERSION);
    }

    /** The features that a back-end and its front-end agreed on last, as a number. */
    String features() {
        return last(FEATURES);
    }

    private String last(Pattern pattern) {
        synchronized (said) {
            String last = "?";
            for (Matcher found = pattern.matcher(said); found.find(); ) {
                last = found.group(1);
            }
            return last;
        }
    }

    long pid() {
        return process.pid();
    }

    /**
     * Starts forwarding.
     *
     * @param mode testpmd's word, as {@code rxonly}
     * @param first bursts to send at once
     */
    void forward(String mode, int first) throws IOException {
        command("set fwd " + mode, "Set " + mode);
        command(first == 0 ? "start" : "start tx_first " + first, "TX offloads=");
    }

    void stop() throws IOException {
        command("stop", "Done.");
    }

    /** Frames received and sent since its start. */
    long[] counts() throws IOException {
        Matcher found = COUNTER.matcher(command("show port stats 0", "Tx-bps"));
        long[] counts = new long[2];
        while (found.find()) {
            counts[found.group(1).equals("RX") ? 0 : 1] = Long.parseLong(found.group(2));
        }
        return counts;
    }

    /** Has it do something; what it says up to what is waited for. */
    private String command(String line, String until) throws IOException {
        int from;
        synchronized (said) {
            from = said.length();
        }
        process.getOutputStream().write((line + "\n").getBytes(StandardCharsets.US_ASCII));
        process.getOutputStream().flush();
        return await(until, from);
    }

    private String await(String what, int from) throws IOException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(TIMEOUT_SECONDS);
        synchronized (said) {
            while (said.indexOf(what, from) < 0) {
                long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
                if (left <= 0 || !reader.isAlive()) {
                    throw new IOException("testpmd did not say '" + what + "': " + said);
                }
                try {
                    said.wait(Math.min(left, 100));
                } catch (InterruptedException e) {
                    throw new IOException("interrupted while testpmd was to say " + what, e);
                }
            }
            return said.substring(from);
        }
    }

    private void read() {
        byte[] bytes = new byte[8192];
        try (InputStream output = process.getInputStream()) {
            for (int n = output.read(bytes); n >= 0; n = output.read(bytes)) {
                synchronized (said) {
                    said.append(new String(bytes, 0, n, StandardCharsets.US_ASCII));
                    said.notifyAll();
                }
            }
        } catch (IOException e) {
            // It was ended.
        }
    }

    @Override
    public void close() {
        process.destroyForcibly();
        process.onExit().join();
    }
}
