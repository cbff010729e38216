package virtio.bench;

import com.sun.management.ThreadMXBean;

import virtio.api.transport.QueueLayout;
import virtio.linux.Linux;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;

/**
 * One way to use a ring, in a JVM of its own so that profiles do not mix: rounds by Java, by C and
 * by both on one ring, in turns on the same two threads, each confined to a processor.
 *
 * <p>Prints lines of a name and a number: what {@link RingBench} makes its rows of.
 */
public final class RingFork {
    private static final int SOLO_BUFFERS = 65536;
    private static final int DUO_BUFFERS = 32768;
    private static final int PINGS = 200;

    // The compiler's thresholds are passed many times.
    private static final int WARM_UP = 150;
    private static final int WARM_UP_BUFFERS = 8192;

    /** Even on a busy machine each fork has some. */
    private static final int LEAST_ROUNDS = 20;

    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

    /** Rounds of one kind: the loop of this thread, and that of the other one or null. */
    private final class Kind {
        final RingTwin.Loop driver;
        final RingTwin.Loop device;
        final int buffers;

        /** The last round's nanoseconds per buffer; NaN when a thread lost its processor in it. */
        double nanos;

        long bytes;
        long counted;

        Kind(RingTwin.Loop driver, RingTwin.Loop device, int buffers) {
            this.driver = driver;
            this.device = device;
            this.buffers = buffers;
        }

        void run(int buffers) throws Throwable {
            long before = involuntary.run(0);
            if (device != null) {
                other.begin(device, buffers);
            }
            long otherBytes = THREADS.getThreadAllocatedBytes(other.threadId());
            long ownBytes = THREADS.getCurrentThreadAllocatedBytes();
            long start = System.nanoTime();
            long result = driver.run(buffers);
            long end = System.nanoTime();
            bytes += THREADS.getCurrentThreadAllocatedBytes() - ownBytes;
            long switches = device == null ? 0 : other.end();
            bytes += THREADS.getThreadAllocatedBytes(other.threadId()) - otherBytes;
            counted += buffers;
            if (result < 0) {
                throw new IllegalStateException("a ring broke");
            }
            switches += involuntary.run(0) - before;
            nanos = switches == 0 ? (end - start) / (double) buffers : Double.NaN;
        }
    }

    private final RingWay way;
    private final RingTwin twin;
    private final RingTwin.Loop involuntary;
    private final OtherThread other;
    private final Map<String, Kind> kinds = new LinkedHashMap<>();
    private final Map<String, Series> series = new LinkedHashMap<>();
    private int rounds;
    private int kept;

    private RingFork(RingWay way, int batch, Path library, Path linux, int cpu) throws Throwable {
        this.way = way;
        twin = new RingTwin(library);
        involuntary = twin.involuntary();
        other = new OtherThread(involuntary, cpu);
        long buffer = Arena.global().allocate(4096, 4096).address();
        QueueLayout ring = RingEnds.memory(way);
        kinds.put(
                "soloC",
                new Kind(
                        twin.solo(
                                way, twin.driver(way, ring), twin.device(way, ring), batch, buffer),
                        null,
                        SOLO_BUFFERS));
        kinds.put("soloJava", solo(new RingEnds.Solo(way, batch, buffer)));
        ring = RingEnds.memory(way);
        kinds.put(
                "duoC",
                duo(
                        twin.drive(way, twin.driver(way, ring), batch, buffer),
                        twin.serve(way, twin.device(way, ring), batch)));
        DriverEnd driver = RingEnds.driver(way);
        DeviceEnd device = RingEnds.device(way, driver.layout());
        kinds.put(
                "duoJava",
                duo(
                        new RingEnds.Driving(way, driver, batch, buffer)::run,
                        new RingEnds.Serving(way, device, batch)::run));
        driver = RingEnds.driver(way);
        kinds.put(
                "javaDriver",
                duo(
                        new RingEnds.Driving(way, driver, batch, buffer)::run,
                        twin.serve(way, twin.device(way, driver.layout()), batch)));
        ring = RingEnds.memory(way);
        kinds.put(
                "javaDevice",
                duo(
                        twin.drive(way, twin.driver(way, ring), batch, buffer),
                        new RingEnds.Serving(way, RingEnds.device(way, ring), batch)::run));
        if (linux != null) {
            RingTwin ringtest = new RingTwin(linux);
            ringtest.startLinux(RingWay.SIZE, way.event());
            kinds.put("soloLinux", new Kind(ringtest.soloLinux(batch), null, SOLO_BUFFERS));
            kinds.put("duoLinux", duo(ringtest.driveLinux(), ringtest.serveLinux()));
        }
    }

    private Kind solo(RingEnds.Solo solo) {
        return new Kind(solo::run, null, SOLO_BUFFERS);
    }

    private Kind duo(RingTwin.Loop driver, RingTwin.Loop device) {
        return new Kind(driver, device, DUO_BUFFERS);
    }

    /**
     * Arguments: layout, workload, batch, milliseconds to measure, the two processors, our library,
     * and Linux's where there is one.
     */
    public static void main(String[] args) throws Throwable {
        RingWay way = new RingWay(args[0], args[1]);
        Linux.pin(Integer.parseInt(args[4]));
        RingFork fork =
                new RingFork(
                        way,
                        Integer.parseInt(args[2]),
                        Path.of(args[6]),
                        args.length == 7 ? null : Path.of(args[7]),
                        Integer.parseInt(args[5]));
        fork.measure(Integer.parseInt(args[3]));
        fork.print();
        // The other thread waits for ever.
        System.exit(0);
    }

    private void measure(int millis) throws Throwable {
        MemorySegment line = Arena.global().allocate(128, 128);
        Kind ping = new Kind(twin.ping(line, 0), twin.ping(line, 1), PINGS);
        List<Kind> order = new ArrayList<>(kinds.values());
        Random random = new Random();
        for (int i = 0; i < WARM_UP; i++) {
            for (Kind kind : order) {
                kind.run(WARM_UP_BUFFERS);
            }
        }
        kinds.values().forEach(kind -> kind.bytes = kind.counted = 0);
        long end = System.nanoTime() + millis * 1_000_000L;
        for (int i = 0; i < LEAST_ROUNDS || System.nanoTime() < end; i++) {
            Collections.shuffle(order, random);
            for (Kind kind : order) {
                kind.run(kind.buffers);
            }
            line.set(ValueLayout.JAVA_LONG, 0, 0);
            ping.run(PINGS);
            note(ping);
        }
    }

    private void note(Kind ping) {
        ratio("solo", "soloC", "soloJava");
        ratio("duo", "duoC", "duoJava");
        ratio("javaDriver", "duoC", "javaDriver");
        ratio("javaDevice", "duoC", "javaDevice");
        ratio("linuxSolo", "soloLinux", "soloJava");
        ratio("linuxDuo", "duoLinux", "duoJava");
        add("roundTrip", ping.nanos);
        for (Kind kind : kinds.values()) {
            rounds++;
            kept += Double.isNaN(kind.nanos) ? 0 : 1;
        }
    }

    private void ratio(String name, String theirs, String ours) {
        if (kinds.containsKey(theirs)) {
            double c = kinds.get(theirs).nanos;
            double java = kinds.get(ours).nanos;
            add(name + ".ratio", c / java);
            add(name + ".c", c);
            add(name + ".java", java);
        }
    }

    private void add(String name, double value) {
        if (!Double.isNaN(value)) {
            series.computeIfAbsent(name, key -> new Series()).add(value);
        }
    }

    private void print() {
        series.forEach((name, values) -> System.out.println(name + " " + values.median()));
        System.out.println("kept " + (double) kept / rounds);
        long bytes = 0;
        long counted = 0;
        for (String name : List.of("soloJava", "duoJava")) {
            bytes += kinds.get(name).bytes;
            counted += kinds.get(name).counted;
        }
        System.out.println("bytes " + (double) bytes / counted);
    }

    /** The thread of the device's end: awake between rounds that follow each other. */
    private static final class OtherThread extends Thread {
        private static final int SPINS = 1000;

        private final RingTwin.Loop involuntary;
        private final int cpu;
        private RingTwin.Loop loop;
        private int buffers;
        private long switches;
        private Throwable failure;

        /** Even: waits for a round; odd: in one. Counted up by the two in turns. */
        private volatile int turn;

        private volatile boolean ready;

        OtherThread(RingTwin.Loop involuntary, int cpu) {
            super("device");
            this.involuntary = involuntary;
            this.cpu = cpu;
            setDaemon(true);
            start();
        }

        void begin(RingTwin.Loop loop, int buffers) {
            this.loop = loop;
            this.buffers = buffers;
            ready = false;
            turn++;
            LockSupport.unpark(this);
            while (!ready) {
                Thread.onSpinWait();
            }
        }

        /** Returns how often it lost its processor. */
        long end() throws Throwable {
            while ((turn & 1) == 1) {
                Thread.onSpinWait();
            }
            if (failure != null) {
                throw failure;
            }
            return switches;
        }

        @Override
        public void run() {
            try {
                Linux.pin(cpu);
                while (failure == null) {
                    for (int spins = 0; (turn & 1) == 0; spins++) {
                        if (spins < SPINS) {
                            Thread.onSpinWait();
                        } else {
                            // Rounds of one thread leave the other processor to who needs it.
                            LockSupport.park();
                        }
                    }
                    long before = involuntary.run(0);
                    ready = true;
                    if (loop.run(buffers) < 0) {
                        failure = new IllegalStateException("a ring broke");
                    }
                    switches = involuntary.run(0) - before;
                    turn++;
                }
            } catch (Throwable e) {
                failure = e;
                ready = true;
                turn++;
            }
        }
    }
}
