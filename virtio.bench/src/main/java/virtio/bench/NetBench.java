package virtio.bench;

import virtio.api.VirtioException;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * 64-byte frames over vhost-user between a front-end and DPDK's testpmd as back-end, in turns by
 * this platform and by testpmd's own front-end; each layout in a JVM of its own, see {@link
 * NetFork}.
 */
final class NetBench {
    static final Map<String, String> DEFAULTS =
            Map.of(
                    "layout", "split,packed",
                    "traffic", "tx,rx,io",
                    "millis", "400",
                    "rounds", "15");

    private static final String[] TRAFFIC = {"tx", "rx", "io"};
    private static final double SPLIT_TARGET = 1.0;
    private static final double PACKED_TARGET = 0.9;
    private static final long START_SECONDS = 60;

    private NetBench() {}

    static void run(Options options) throws Exception {
        List<String> layouts = options.words("layout", "split", "packed");
        List<String> traffic = options.words("traffic", TRAFFIC);
        int millis = options.number("millis", 3_600_000);
        int rounds = options.number("rounds", 100);
        String tool = new Peers().tool("dpdk_testpmd");
        List<Integer> processors = Machine.processors();
        if (processors.size() < 2) {
            throw new VirtioException("this process may use 1 processor, 2 are needed");
        }
        int front = processors.get(0);
        int back = processors.get(1);
        Report report =
                new Report(
                        "64-byte frames over vhost-user, 1 queue pair, rings of %d, mergeable"
                                .formatted(NetTraffic.RING_SIZE));
        report.header("processors", "back-ends on %d, front-ends on %d".formatted(back, front));
        report.header("pages", "ordinary ones behind the buffers of all sides");
        report.header("rounds", "%d of %d ms, in turns".formatted(rounds, millis));
        long seconds = START_SECONDS + rounds * traffic.size() * (millis + 1000L) * 2 / 1000;
        for (String layout : layouts) {
            Map<String, Series> said = new LinkedHashMap<>();
            System.err.println(layout + ":");
            List<String> command =
                    RingBench.java(
                            NetFork.class,
                            layout,
                            String.join(",", traffic),
                            millis,
                            rounds,
                            front,
                            back,
                            tool);
            for (String line : Peers.output(seconds, command).split("\n")) {
                String[] words = line.split(" ", 2);
                if (words[0].equals("features")) {
                    report.header(layout + " features", words[1]);
                } else if (words[0].equals("testpmd")) {
                    report.header("testpmd", words[1]);
                } else {
                    said.computeIfAbsent(words[0], name -> new Series())
                            .add(Double.parseDouble(words[1]));
                }
            }
            for (String word : traffic) {
                Series ratio = said.get(word + ".ratio");
                if (ratio == null) {
                    System.err.printf(
                            "%s %s: the machine had other work in every round%n", layout, word);
                    continue;
                }
                report.row(
                        "layout", layout,
                        "traffic", word,
                        "ratioMin", ratio.min(),
                        "ratioMedian", ratio.median(),
                        "ratioMax", ratio.max(),
                        "target", layout.equals("split") ? SPLIT_TARGET : PACKED_TARGET,
                        "oursMpps", said.get(word + ".ours").median(),
                        "dpdkMpps", said.get(word + ".dpdk").median(),
                        "allocatedBytesPerFrame", said.get(word + ".bytes").max(),
                        "keptRounds", ratio.count());
            }
        }
        report.print(options.json());
    }
}
