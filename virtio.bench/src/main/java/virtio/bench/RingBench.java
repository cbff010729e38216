package virtio.bench;

import virtio.api.VirtioException;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Stream;

/**
 * The virtqueue against C, nanoseconds per buffer: our own twins and, where its source is, Linux's
 * ring benchmark.
 *
 * <p>Each fork is a JVM that measures one way to use a ring, see {@link RingFork}. What counts is
 * the ratio of two rounds that follow each other.
 */
final class RingBench {
    static final Map<String, String> DEFAULTS =
            Map.of(
                    "layout", "split,packed",
                    "workload", "poll,event,burst,inorder,map",
                    "forks", "4",
                    "millis", "1500",
                    "batch", "32");

    private static final String MAP = "map";
    private static final long FORK_SECONDS = 300;

    /** Against Linux's ring. */
    private static final double LINUX_TARGET = 1.2;

    /** Names of a fork's rows: which two rounds are compared. */
    private static final List<String> ROWS =
            List.of("solo", "duo", "javaDriver", "javaDevice", "linuxSolo", "linuxDuo");

    /** What is measured in a JVM of its own, and the numbers that its forks said. */
    private record Fork(RingWay way, List<String> command, Map<String, Series> said) {
        Fork(RingWay way, List<String> command) {
            this(way, command, new LinkedHashMap<>());
        }

        Series series(String name) {
            return said.computeIfAbsent(name, key -> new Series());
        }
    }

    private final int rounds;
    private final int millis;
    private final int batch;
    private final List<Integer> processors;
    private final List<Fork> rings = new ArrayList<>();
    private final Map<String, Fork> mappings = new LinkedHashMap<>();

    private RingBench(Options options) throws Exception {
        rounds = options.number("forks", 1000);
        millis = options.number("millis", 3_600_000);
        batch = options.number("batch", RingWay.SIZE);
        processors = Machine.processors();
        if (processors.size() < 2) {
            throw new VirtioException("this process may use 1 processor, 2 are needed");
        }
    }

    static void run(Options options) throws Exception {
        String[] workloads =
                Stream.concat(Stream.of(RingWay.WORKLOADS), Stream.of(MAP)).toArray(String[]::new);
        List<String> layouts = options.words("layout", RingWay.LAYOUTS);
        List<String> wanted = options.words("workload", workloads);
        RingBench bench = new RingBench(options);
        Report report =
                new Report("virtqueues of %d, time in C over time in Java".formatted(RingWay.SIZE));
        Path folder = Files.createTempDirectory("virtio-bench-");
        try {
            Path twin = RingTwin.compileTwin(folder);
            Path source = RingTwin.linuxSource();
            Path linux = source == null ? null : RingTwin.compileLinux(source, folder);
            report.header("C", RingTwin.compiler());
            report.header(
                    "ringtest",
                    source == null ? "no Debian package linux-source in /usr/src" : source);
            for (String layout : layouts) {
                for (String workload : wanted) {
                    bench.plan(new RingWay(layout, workload), twin, linux);
                }
            }
            bench.measure();
        } finally {
            delete(folder);
        }
        bench.fill(report);
        report.print(options.json());
    }

    private void plan(RingWay way, Path twin, Path linux) throws IOException {
        String first = processors.get(0).toString();
        if (way.workload().equals(MAP)) {
            for (String operations : RingMapping.OPERATIONS) {
                for (int segments : new int[] {1, 4}) {
                    mappings.put(
                            "%s, %s, buffers of %d".formatted(way.layout(), operations, segments),
                            new Fork(
                                    way,
                                    java(
                                            RingMapping.class,
                                            way.layout(),
                                            batch,
                                            millis,
                                            segments,
                                            operations,
                                            first)));
                }
            }
            return;
        }
        if (!way.known()) {
            System.err.printf(
                    "%s %s: not measured, the ring does not know it%n",
                    way.layout(), way.workload());
            return;
        }
        List<String> command =
                java(
                        RingFork.class,
                        way.layout(),
                        way.workload(),
                        batch,
                        millis,
                        first,
                        processors.get(1),
                        twin);
        if (linux != null && way.linux()) {
            command.add(linux.toString());
        }
        rings.add(new Fork(way, command));
    }

    /** The command for another JVM as this one, with that class to run. */
    static List<String> java(Class<?> main, Object... arguments) {
        List<String> command = new ArrayList<>();
        command.add(ProcessHandle.current().info().command().orElse("java"));
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        // Measured threads are confined and awake: the compiler would not get its turn.
        command.add("-Xbatch");
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), main.getName()));
        for (Object argument : arguments) {
            command.add(argument.toString());
        }
        return command;
    }

    private void measure() throws Exception {
        List<Fork> order = new ArrayList<>(rings);
        order.addAll(mappings.values());
        for (int round = 0; round < rounds; round++) {
            Collections.shuffle(order);
            for (Fork fork : order) {
                System.err.printf(
                        "fork %d of %d: %s %s%n",
                        round + 1, rounds, fork.way.layout(), fork.way.workload());
                for (String line : Peers.output(FORK_SECONDS, fork.command).split("\n")) {
                    int space = line.indexOf(' ');
                    fork.series(line.substring(0, space))
                            .add(Double.parseDouble(line.substring(space + 1)));
                }
            }
        }
    }

    private void fill(Report report) {
        report.header("forks", "%d of %d ms, batches of %d".formatted(rounds, millis, batch));
        mappings.forEach(
                (name, fork) -> {
                    Series nanos = fork.series("nanos");
                    report.header(
                            "map ops, " + name,
                            String.format(
                                    Locale.ROOT,
                                    "%.2f ns per segment (%.2f to %.2f)",
                                    nanos.median(),
                                    nanos.min(),
                                    nanos.max()));
                });
        for (Fork fork : rings) {
            for (String row : ROWS) {
                if (fork.said.containsKey(row + ".ratio")) {
                    Series ratio = fork.series(row + ".ratio");
                    report.row(
                            "layout", fork.way.layout(),
                            "workload", fork.way.workload(),
                            "row", row,
                            "ratioMin", ratio.min(),
                            "ratioMedian", ratio.median(),
                            "ratioMax", ratio.max(),
                            "target", row.startsWith("linux") ? LINUX_TARGET : fork.way.target(),
                            "nanos", fork.series(row + ".java").median(),
                            "nanosOfC", fork.series(row + ".c").median(),
                            "bytesPerBuffer", fork.series("bytes").max(),
                            "roundTripNanos", fork.series("roundTrip").median(),
                            "keptRounds", fork.series("kept").median());
                }
            }
        }
    }

    private static void delete(Path folder) throws IOException {
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.delete(file);
            }
        }
    }
}
