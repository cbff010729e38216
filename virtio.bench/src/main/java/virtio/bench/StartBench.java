package virtio.bench;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * From the start of the launcher to the first completed read, and what memory the container then
 * has. The disk is as small as the read.
 */
final class StartBench {
    static final Map<String, String> DEFAULTS = Map.of("rounds", "10");

    private StartBench() {}

    static void run(Options options) throws Exception {
        int rounds = options.number("rounds", 1000);
        Report report = new Report("start to the first completed read");
        report.header("rounds", rounds + ", after one that may make the JVM's cache");
        Series millis = new Series();
        Series mebibytes = new Series();
        Path copy = Files.createTempFile("virtio-bench-", ".img");
        String commands =
                "export ram:4KiB mmio:bench; attach mmio:bench --name bench;"
                        + " copy bench file:%s; serve".formatted(copy);
        try {
            for (int round = 0; round <= rounds; round++) {
                long start = System.nanoTime();
                try (Command container = Command.start(commands)) {
                    container.awaitLine("sha256 ");
                    if (round > 0) {
                        millis.add((System.nanoTime() - start) / 1e6);
                        mebibytes.add(Machine.residentBytes(container.pid()) / 1048576.0);
                    }
                }
            }
        } finally {
            Files.delete(copy);
        }
        report.row(
                "minMillis", millis.min(),
                "medianMillis", millis.median(),
                "maxMillis", millis.max(),
                "residentMedianMiB", mebibytes.median());
        report.print(options.json());
    }
}
