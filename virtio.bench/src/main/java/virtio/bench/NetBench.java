package virtio.bench;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.linux.Linux;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * 64-byte frames over vhost-user between a front-end and DPDK's testpmd as back-end, in turns by
 * this platform and by testpmd's own front-end.
 *
 * <p>Each front-end has a back-end of its own, and of the two pairs one runs at a time, on the same
 * two processors. It is always the back-end that counts, and it cannot tell them apart.
 */
final class NetBench {
    static final Map<String, String> DEFAULTS =
            Map.of(
                    "layout", "split,packed",
                    "traffic", "tx,rx,io",
                    "millis", "400",
                    "rounds", "15");

    private static final String NAME = "bench";
    private static final long SETTLE_MILLIS = 50;
    private static final long WARM_MILLIS = 3000;

    /** Half a ring of frames is on its way. */
    private static final int IO_BURSTS = NetTraffic.RING_SIZE / 2 / Testpmd.BURST;

    /** Where the polling threads waited for their processors for more of a turn, it counts not. */
    private static final double MOST_WAITED = 0.1;

    /**
     * What testpmd's front-end does not take: with it, the back-end would have more to do for us.
     */
    private static final String OTHERS =
            Stream.of(
                            "EVENT_IDX IN_ORDER CSUM GUEST_CSUM GUEST_TSO4 GUEST_TSO6 GUEST_ECN"
                                    .split(" "),
                            "GUEST_USO4 GUEST_USO6 HOST_TSO4 HOST_TSO6 HOST_ECN HOST_USO"
                                    .split(" "))
                    .flatMap(Stream::of)
                    .collect(Collectors.joining(",without=", ",without=", ""));

    /** What the front-end does, what its back-end does meanwhile, and what that counts. */
    private enum Traffic {
        TX("txonly", "rxonly", 0),
        RX("rxonly", "txonly", 1),
        IO("io", "io", 0);

        final String front;
        final String back;
        final int counter;

        Traffic(String front, String back, int counter) {
            this.front = front;
            this.back = back;
            this.counter = counter;
        }

        String word() {
            return front.equals("io") ? front : front.substring(0, 2);
        }
    }

    /** What is measured, and what it showed. */
    private record Setting(
            String layout,
            Traffic traffic,
            double target,
            Series ratio,
            Series ours,
            Series theirs,
            Series bytesPerFrame) {
        Setting(String layout, Traffic traffic) {
            this(
                    layout,
                    traffic,
                    layout.equals("split") ? 1.0 : 0.9,
                    new Series(),
                    new Series(),
                    new Series(),
                    new Series());
        }

        void add(Turn our, Turn their, int round) {
            System.err.printf(
                    "round %d, %s %s: %.2f and %.2f million frames/s%s%n",
                    round,
                    layout,
                    traffic.word(),
                    our.mpps,
                    their.mpps,
                    our.counts() && their.counts()
                            ? ""
                            : ", not counted: without a processor for %.0f and %.0f %%"
                                    .formatted(100 * our.waited, 100 * their.waited));
            if (our.counts() && their.counts()) {
                ratio.add(our.mpps / their.mpps);
                ours.add(our.mpps);
                theirs.add(their.mpps);
                bytesPerFrame.add(our.bytesPerFrame);
            }
        }
    }

    /**
     * What a front-end did in its turn.
     *
     * @param mpps millions of frames a second
     * @param waited for a processor, by both polling threads, as part of the time
     */
    private record Turn(double mpps, double waited, double bytesPerFrame) {
        boolean counts() {
            return waited <= MOST_WAITED;
        }
    }

    /** A front-end and the back-end that it has for itself. */
    private abstract static class Pair implements AutoCloseable {
        final Testpmd backEnd;

        Pair(Testpmd backEnd) {
            this.backEnd = backEnd;
        }

        abstract void start(String mode, int first) throws Exception;

        abstract void stop() throws Exception;

        /** Nanoseconds that the front-end's polling thread waited for its processor. */
        abstract long waitedNanos() throws IOException;

        long allocatedBytes() {
            return 0;
        }

        Turn run(Traffic traffic, long millis) throws Exception {
            int first = traffic == Traffic.IO ? IO_BURSTS : 0;
            // Who receives goes first, or the ring would be full before it looks.
            if (traffic == Traffic.RX) {
                start(traffic.front, 0);
                backEnd.forward(traffic.back, 0);
            } else {
                backEnd.forward(traffic.back, 0);
                start(traffic.front, first);
            }
            Thread.sleep(SETTLE_MILLIS);
            long waited = waited();
            long allocated = allocatedBytes();
            long before = backEnd.counts()[traffic.counter];
            long start = System.nanoTime();
            Thread.sleep(millis);
            long frames = backEnd.counts()[traffic.counter] - before;
            long nanos = System.nanoTime() - start;
            allocated = allocatedBytes() - allocated;
            waited = waited() - waited;
            stop();
            backEnd.stop();
            if (frames == 0) {
                throw new VirtioException("no frame came through in " + millis + " ms");
            }
            return new Turn(
                    frames * 1e3 / nanos, (double) waited / nanos, (double) allocated / frames);
        }

        private long waited() throws IOException {
            return waitedNanos() + Machine.waitedNanos(backEnd.pid(), Testpmd.WORKER);
        }

        @Override
        public void close() throws IOException {
            backEnd.close();
        }
    }

    private static final class Ours extends Pair {
        private final VirtioBus bus;
        private final NetTraffic frames;

        Ours(Container container, Testpmd backEnd, Path socket, boolean packed) throws Exception {
            super(backEnd);
            bus = container.bus();
            bus.attach(
                    "vhost-user:%s,type=net%s%s"
                            .formatted(socket, OTHERS, packed ? "" : ",without=RING_PACKED"),
                    NAME);
            frames = new NetTraffic(container.card(NAME));
        }

        @Override
        void start(String mode, int first) {
            frames.start(mode, first);
        }

        @Override
        void stop() throws Exception {
            frames.stop();
        }

        @Override
        long waitedNanos() throws IOException {
            return Machine.waitedNanos(ProcessHandle.current().pid(), NetTraffic.THREAD);
        }

        @Override
        long allocatedBytes() {
            return frames.allocatedBytes();
        }

        @Override
        public void close() throws IOException {
            frames.close();
            bus.detach(NAME);
            super.close();
        }
    }

    private static final class Theirs extends Pair {
        private final Testpmd frontEnd;

        Theirs(Testpmd backEnd, Testpmd frontEnd) {
            super(backEnd);
            this.frontEnd = frontEnd;
        }

        @Override
        void start(String mode, int first) throws Exception {
            frontEnd.forward(mode, first);
        }

        @Override
        void stop() throws Exception {
            frontEnd.stop();
        }

        @Override
        long waitedNanos() throws IOException {
            return Machine.waitedNanos(frontEnd.pid(), Testpmd.WORKER);
        }

        @Override
        public void close() throws IOException {
            frontEnd.close();
            super.close();
        }
    }

    private final String tool;
    private final Container container;
    private final Path folder;
    private final int front;
    private final int back;
    private final int millis;
    private final int rounds;

    private NetBench(
            String tool,
            Container container,
            Path folder,
            List<Integer> processors,
            int millis,
            int rounds) {
        this.tool = tool;
        this.container = container;
        this.folder = folder;
        front = processors.get(0);
        back = processors.get(1);
        this.millis = millis;
        this.rounds = rounds;
    }

    static void run(Options options) throws Exception {
        List<Setting> settings = new ArrayList<>();
        List<String> wanted = options.words("traffic", "tx", "rx", "io");
        for (String layout : options.words("layout", "split", "packed")) {
            for (Traffic traffic : Traffic.values()) {
                if (wanted.contains(traffic.word())) {
                    settings.add(new Setting(layout, traffic));
                }
            }
        }
        int millis = options.number("millis", 3_600_000);
        int rounds = options.number("rounds", 1000);
        String tool = new Peers().tool("dpdk_testpmd");
        List<Integer> processors = Machine.processors();
        if (processors.size() < 2) {
            throw new VirtioException("this process may use 1 processor, 2 are needed");
        }
        Report report =
                new Report(
                        "64-byte frames over vhost-user, 1 queue pair, rings of %d, mergeable"
                                .formatted(NetTraffic.RING_SIZE));
        report.header(
                "processors",
                "back-ends on %d, front-ends on %d"
                        .formatted(processors.get(1), processors.get(0)));
        report.header("pages", "ordinary ones behind the buffers of all sides");
        report.header("rounds", "%d of %d ms, in turns".formatted(rounds, millis));
        Path folder = Files.createTempDirectory("virtio-bench-");
        // Before the container starts: its threads inherit it.
        Linux.pin(processors.get(0));
        try (Container container = new Container()) {
            NetBench bench = new NetBench(tool, container, folder, processors, millis, rounds);
            for (String layout : List.of("split", "packed")) {
                List<Setting> those =
                        settings.stream().filter(s -> s.layout.equals(layout)).toList();
                if (!those.isEmpty()) {
                    bench.measure(layout.equals("packed"), those, report);
                }
            }
        } finally {
            try (Stream<Path> files = Files.walk(folder)) {
                for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                    Files.deleteIfExists(file);
                }
            }
        }
        for (Setting s : settings) {
            if (s.ratio.count() == 0) {
                System.err.printf(
                        "%s %s: the machine had other work in every round%n",
                        s.layout, s.traffic.word());
                continue;
            }
            report.row(
                    "layout", s.layout,
                    "traffic", s.traffic.word(),
                    "ratioMin", s.ratio.min(),
                    "ratioMedian", s.ratio.median(),
                    "ratioMax", s.ratio.max(),
                    "target", s.target,
                    "oursMpps", s.ours.median(),
                    "dpdkMpps", s.theirs.median(),
                    "allocatedBytesPerFrame", s.bytesPerFrame.median(),
                    "keptRounds", s.ratio.count());
        }
        report.print(options.json());
    }

    private void measure(boolean packed, List<Setting> settings, Report report) throws Exception {
        String layout = packed ? "packed" : "split";
        Path ourSocket = folder.resolve(layout + "-ours.sock");
        Path theirSocket = folder.resolve(layout + "-dpdk.sock");
        try (Pair theirs =
                        new Theirs(
                                Testpmd.backEnd(tool, theirSocket, back),
                                Testpmd.frontEnd(tool, theirSocket, packed, front));
                Pair ours =
                        new Ours(
                                container,
                                Testpmd.backEnd(tool, ourSocket, back),
                                ourSocket,
                                packed)) {
            // Compiled with the profiles of all settings, as in a container that lives for long.
            for (Setting setting : settings) {
                ours.run(setting.traffic, WARM_MILLIS / settings.size());
                theirs.run(setting.traffic, SETTLE_MILLIS);
            }
            List<Setting> order = new ArrayList<>(settings);
            Random random = new Random();
            for (int round = 0; round < rounds; round++) {
                Collections.shuffle(order, random);
                for (Setting s : order) {
                    boolean oursFirst = random.nextBoolean();
                    Turn first = (oursFirst ? ours : theirs).run(s.traffic, millis);
                    Turn second = (oursFirst ? theirs : ours).run(s.traffic, millis);
                    s.add(oursFirst ? first : second, oursFirst ? second : first, round + 1);
                }
            }
            report.header("testpmd", theirs.backEnd.version());
            report.header(
                    layout + " features",
                    "ours %s, DPDK's %s"
                            .formatted(ours.backEnd.features(), theirs.backEnd.features()));
        }
    }
}
