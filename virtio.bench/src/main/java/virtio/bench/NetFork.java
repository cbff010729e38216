package virtio.bench;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.linux.Linux;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Frames over rings of one layout, in a JVM of its own so that profiles do not mix: turns by this
 * platform and by testpmd's own front-end.
 *
 * <p>Each front-end has a back-end of its own, and of the two pairs one runs at a time, on the same
 * two processors. It is always the back-end that counts, and it cannot tell them apart.
 *
 * <p>Prints lines of a name, a space and what it showed: what {@link NetBench} makes its rows of.
 */
public final class NetFork {
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

    private final int millis;
    private final int rounds;

    private NetFork(int millis, int rounds) {
        this.millis = millis;
        this.rounds = rounds;
    }

    /**
     * Arguments: layout, traffic in words between commas, milliseconds of a turn, rounds, the
     * processors of front-ends and back-ends, and where testpmd is.
     */
    public static void main(String[] args) throws Exception {
        boolean packed = args[0].equals("packed");
        List<String> words = Arrays.asList(args[1].split(","));
        int front = Integer.parseInt(args[4]);
        int back = Integer.parseInt(args[5]);
        String tool = args[6];
        Path folder = Files.createTempDirectory("virtio-bench-");
        Path ourSocket = folder.resolve("ours.sock");
        Path theirSocket = folder.resolve("dpdk.sock");
        // Before the container starts: its threads inherit it.
        Linux.pin(front);
        try (Container container = new Container();
                Pair theirs =
                        new Theirs(
                                Testpmd.backEnd(tool, theirSocket, back),
                                Testpmd.frontEnd(tool, theirSocket, packed, front));
                Pair ours =
                        new Ours(
                                container,
                                Testpmd.backEnd(tool, ourSocket, back),
                                ourSocket,
                                packed)) {
            new NetFork(Integer.parseInt(args[2]), Integer.parseInt(args[3]))
                    .measure(
                            Stream.of(Traffic.values())
                                    .filter(traffic -> words.contains(traffic.word()))
                                    .toList(),
                            ours,
                            theirs);
            System.out.println("testpmd " + theirs.backEnd.version());
            System.out.printf(
                    "features ours %s, DPDK's %s%n",
                    ours.backEnd.features(), theirs.backEnd.features());
        } finally {
            try (Stream<Path> files = Files.walk(folder)) {
                for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                    Files.deleteIfExists(file);
                }
            }
        }
        // The container's threads would keep the process.
        System.exit(0);
    }

    private void measure(List<Traffic> all, Pair ours, Pair theirs) throws Exception {
        // Compiled with the profiles of all of them, as in a container that lives for long.
        for (Traffic traffic : all) {
            ours.run(traffic, WARM_MILLIS / all.size());
            theirs.run(traffic, SETTLE_MILLIS);
        }
        List<Traffic> order = new ArrayList<>(all);
        Random random = new Random();
        for (int round = 1; round <= rounds; round++) {
            Collections.shuffle(order, random);
            for (Traffic traffic : order) {
                boolean oursFirst = random.nextBoolean();
                Turn first = (oursFirst ? ours : theirs).run(traffic, millis);
                Turn second = (oursFirst ? theirs : ours).run(traffic, millis);
                Turn our = oursFirst ? first : second;
                Turn their = oursFirst ? second : first;
                String word = traffic.word();
                boolean counts = our.counts() && their.counts();
                System.err.printf(
                        "round %d, %s: %.2f and %.2f million frames/s%s%n",
                        round,
                        word,
                        our.mpps,
                        their.mpps,
                        counts
                                ? ""
                                : ", not counted: without a processor for %.0f and %.0f %%"
                                        .formatted(100 * our.waited, 100 * their.waited));
                if (counts) {
                    System.out.println(word + ".ratio " + our.mpps / their.mpps);
                    System.out.println(word + ".ours " + our.mpps);
                    System.out.println(word + ".dpdk " + their.mpps);
                    System.out.println(word + ".bytes " + our.bytesPerFrame);
                }
            }
        }
    }
}
