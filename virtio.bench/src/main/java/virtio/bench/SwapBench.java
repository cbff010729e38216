package virtio.bench;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;

import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;

/**
 * Swaps a disk below a running load between two paths to the same image file: mmio in this process,
 * vhost-user served by a second one.
 */
final class SwapBench {
    static final Map<String, String> DEFAULTS = Map.of("swaps", "100", "iodepth", "16");

    private static final String NAME = "bench";
    private static final String NEAR = "mmio:bench";
    private static final long IMAGE_BYTES = 64L << 20;

    /** Reads between two swaps. */
    private static final int READS = 2000;

    private static final long READS_TIMEOUT_MILLIS = 10_000;

    private SwapBench() {}

    static void run(Options options) throws Exception {
        int swaps = options.number("swaps", 100_000);
        int iodepth = options.number("iodepth", 256);
        Report report = new Report("pause of a swap under load");
        report.header(
                "load", "4 KiB random reads from a file, iodepth %d, interrupt".formatted(iodepth));
        report.header("swaps", "%d, after as many that warm up, at most 100".formatted(swaps));
        Path folder = Files.createTempDirectory("virtio-bench-");
        Path image = folder.resolve("disk.img");
        String far = "vhost-user:" + folder.resolve("disk.sock");
        String backend = "file:%s,serial=bench".formatted(image);
        try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
            file.setLength(IMAGE_BYTES);
        }
        try (Command server = Command.start("export %s %s; serve".formatted(backend, far));
                Container container = new Container()) {
            server.awaitLine("serving ");
            VirtioBus bus = container.bus();
            bus.export(backend, NEAR);
            bus.attach(NEAR, NAME);
            RandomReads load = new RandomReads(container.disk(NAME), iodepth, false);
            FutureTask<RandomReads.Result> loading =
                    new FutureTask<>((Callable<RandomReads.Result>) () -> load.run(1e6));
            Thread.ofPlatform().name("bench-load").start(loading);
            try {
                measure(bus, far, load, loading, Math.min(swaps, 100), null);
                measure(bus, far, load, loading, swaps, report);
            } finally {
                load.stop();
                loading.get();
                bus.detach(NAME);
            }
        } finally {
            Files.deleteIfExists(folder.resolve("disk.sock"));
            Files.delete(image);
            Files.delete(folder);
        }
        report.print(options.json());
    }

    private static void measure(
            VirtioBus bus,
            String far,
            RandomReads load,
            FutureTask<?> loading,
            int swaps,
            Report report)
            throws Exception {
        Series[] pauses = {new Series(), new Series()};
        Series[] gaps = {new Series(), new Series()};
        String[] targets = {far, NEAR};
        // Back where it began, so that there can be another measurement.
        for (int i = 0; i < swaps || i % 2 != 0; i++) {
            awaitReads(load, loading);
            load.takeLongestGapNanos();
            pauses[i % 2].add(bus.swap(NAME, targets[i % 2]).pauseNanos() / 1e6);
            awaitReads(load, loading);
            gaps[i % 2].add(load.takeLongestGapNanos() / 1e6);
        }
        if (report != null) {
            for (int i = 0; i < 2; i++) {
                report.row(
                        "to", i == 0 ? "vhost-user" : "mmio",
                        "pauseP50Millis", pauses[i].median(),
                        "pauseP99Millis", pauses[i].percentile(99),
                        "pauseMaxMillis", pauses[i].max(),
                        "gapP50Millis", gaps[i].median(),
                        "gapP99Millis", gaps[i].percentile(99),
                        "gapMaxMillis", gaps[i].max());
            }
        }
    }

    private static void awaitReads(RandomReads load, FutureTask<?> loading) throws Exception {
        long target = load.completed() + READS;
        long end = System.nanoTime() + READS_TIMEOUT_MILLIS * 1_000_000;
        while (load.completed() < target) {
            if (loading.isDone()) {
                loading.get();
            }
            if (System.nanoTime() > end) {
                throw new VirtioException(
                        "no %d reads within %d ms".formatted(READS, READS_TIMEOUT_MILLIS));
            }
            Thread.sleep(1);
        }
    }
}
