package virtio.bench;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.linux.Linux;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * 4 KiB random reads over vhost-user from one qemu-storage-daemon without storage, in turns by this
 * platform and by libblkio.
 *
 * <p>What counts is the ratio of two turns that follow each other: the same machine is faster at
 * one time than at another.
 */
final class BlkBench {
    static final Map<String, String> DEFAULTS =
            Map.of("iodepth", "1,32", "mode", "poll,interrupt", "runtime", "2", "rounds", "5");

    private static final String NAME = "bench";
    private static final int MAX_IODEPTH = 256;

    /** What is measured, and what it showed. */
    private record Setting(
            String mode,
            int iodepth,
            Series ratio,
            Series ours,
            Series libblkio,
            Series oursMicros,
            Series libblkioMicros,
            Series bytesPerRead) {
        Setting(String mode, int iodepth) {
            this(
                    mode,
                    iodepth,
                    new Series(),
                    new Series(),
                    new Series(),
                    new Series(),
                    new Series(),
                    new Series());
        }
    }

    private final Container container;
    private final VirtioBus bus;
    private final Path socket;
    private final int runtime;
    private final int processor;
    private final String blkioBench;

    private BlkBench(
            Container container, Path socket, int runtime, int processor, String blkioBench)
            throws Exception {
        this.container = container;
        this.bus = container.bus();
        this.socket = socket;
        this.runtime = runtime;
        this.processor = processor;
        this.blkioBench = blkioBench;
    }

    static void run(Options options) throws Exception {
        List<Setting> settings = new ArrayList<>();
        for (String mode : options.words("mode", "poll", "interrupt")) {
            for (int iodepth : options.numbers("iodepth", MAX_IODEPTH)) {
                settings.add(new Setting(mode, iodepth));
            }
        }
        int runtime = options.number("runtime", 3600);
        int rounds = options.number("rounds", 1000);
        Peers peers = new Peers();
        List<Integer> processors = Machine.processors();
        if (processors.size() < 2) {
            throw new VirtioException("this process may use 1 processor, 2 are needed");
        }
        int front = processors.get(0);
        int back = processors.get(1);
        Report report = new Report("4 KiB random reads over vhost-user, 1 queue, 1 thread");
        report.header("libblkio", peers.libblkioVersion());
        report.header("back-end", peers.storageDaemonVersion() + ", null-co");
        report.header("processors", "back-end on %d, front-ends on %d".formatted(back, front));
        report.header("rounds", "%d of %d s, in turns".formatted(rounds, runtime));
        Path folder = Files.createTempDirectory("virtio-bench-");
        Path socket = folder.resolve("null.sock");
        Process daemon = peers.storageDaemon(socket, back);
        // Before the container starts: its threads inherit it.
        Linux.pin(front);
        try (Container container = new Container()) {
            new BlkBench(container, socket, runtime, front, peers.tool("blkio_bench"))
                    .measure(settings, rounds);
        } finally {
            daemon.destroy();
            daemon.waitFor();
            Files.deleteIfExists(socket);
            Files.delete(folder);
        }
        for (Setting s : settings) {
            report.row(
                    "mode", s.mode,
                    "iodepth", s.iodepth,
                    "ratioMin", s.ratio.min(),
                    "ratioMedian", s.ratio.median(),
                    "ratioMax", s.ratio.max(),
                    "oursIops", s.ours.median(),
                    "libblkioIops", s.libblkio.median(),
                    "oursP50Micros", s.oursMicros.median(),
                    "libblkioP50Micros", s.libblkioMicros.median(),
                    "allocatedBytesPerRead", s.bytesPerRead.median());
        }
        report.print(options.json());
    }

    private void measure(List<Setting> settings, int rounds) throws Exception {
        // Compiled with the profiles of all settings, as in a container that lives for long.
        for (Setting setting : settings) {
            ours(setting);
        }
        List<Setting> order = new ArrayList<>(settings);
        Random random = new Random();
        for (int round = 0; round < rounds; round++) {
            Collections.shuffle(order, random);
            for (Setting setting : order) {
                boolean oursFirst = random.nextBoolean();
                RandomReads.Result ours = oursFirst ? ours(setting) : null;
                String libblkio = libblkio(setting);
                if (ours == null) {
                    ours = ours(setting);
                }
                double libblkioIops = number(libblkio, "iops");
                setting.ratio.add(ours.iops() / libblkioIops);
                setting.ours.add(ours.iops());
                setting.libblkio.add(libblkioIops);
                setting.oursMicros.add(ours.p50Nanos() / 1e3);
                setting.libblkioMicros.add(number(libblkio, "p50") / 1e3);
                setting.bytesPerRead.add((double) ours.allocatedBytes() / ours.ios());
                System.err.printf(
                        "round %d, %s, iodepth %d: %.0f and %.0f reads/s%n",
                        round + 1, setting.mode, setting.iodepth, ours.iops(), libblkioIops);
            }
        }
    }

    private RandomReads.Result ours(Setting setting) throws Exception {
        bus.attach("vhost-user:" + socket, NAME);
        try {
            boolean poll = setting.mode.equals("poll");
            return new RandomReads(container.disk(NAME), setting.iodepth, poll).run(runtime);
        } finally {
            bus.detach(NAME);
        }
    }

    private String libblkio(Setting setting) throws Exception {
        return Peers.output(
                runtime + 30,
                List.of(
                        "taskset",
                        "-c",
                        Integer.toString(processor),
                        blkioBench,
                        "bench",
                        socket.toString(),
                        "--iodepth=" + setting.iodepth,
                        "--mode=" + (setting.mode.equals("poll") ? "poll" : "event"),
                        "--runtime=" + runtime));
    }

    private static double number(String json, String name) throws VirtioException {
        Matcher found = Pattern.compile("\"" + name + "\":([0-9.]+)").matcher(json);
        if (!found.find()) {
            throw new VirtioException("blkio_bench said no %s: %s".formatted(name, json));
        }
        return Double.parseDouble(found.group(1));
    }
}
