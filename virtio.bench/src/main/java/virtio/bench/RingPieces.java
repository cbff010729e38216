package virtio.bench;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

import virtio.api.ScatterList;
import virtio.api.backend.Chain;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;

/**
 * What a buffer costs in one thread, piece by piece, for who works on the ring: nanoseconds of a
 * whole round, by how it is made.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Fork(value = 2, jvmArgsAppend = "--enable-native-access=ALL-UNNAMED")
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class RingPieces {
    private static final int BATCH = 32;

    /** As {@link RingWay#layout}. */
    @Param({"split", "packed"})
    public String layout;

    /** As {@link RingWay#workload}. */
    @Param({"poll", "event", "inorder"})
    public String workload;

    private final MemorySegment memory = Arena.global().allocate(4096, 4096);
    private final ScatterList premapped = new ScatterList(1).inMapped(memory.address(), 64);
    private final ScatterList segment = new ScatterList(1).in(memory, 0, 64);
    private final ScatterList four = new ScatterList(4);
    private final long[] mapHandles = new long[BATCH];
    private final int[] sizes = new int[BATCH];
    private final long[] tokens = new long[BATCH];
    private final int[] lengths = new int[BATCH];
    private final Chain[] chains = new Chain[BATCH];
    private final long[] written = new long[BATCH];
    private DriverEnd driver;
    private DeviceEnd device;

    /** A fresh ring with both its ends. */
    @Setup
    public void start() throws Exception {
        RingWay way = new RingWay(layout, workload);
        driver = RingEnds.driver(way);
        device = RingEnds.device(way, driver.layout());
        Arrays.setAll(chains, i -> device.newChain());
        Arrays.fill(mapHandles, memory.address());
        Arrays.fill(sizes, 64);
        four.clear();
        for (int i = 0; i < 4; i++) {
            four.in(memory, 64 * i, 64);
        }
    }

    private long one(ScatterList list) {
        driver.add(list, 1);
        driver.kickPrepare();
        device.next(chains[0]);
        device.complete(chains[0], 0);
        device.notifyDriver();
        return driver.get();
    }

    /** One buffer that the caller mapped. */
    @Benchmark
    public long premapped() {
        return one(premapped);
    }

    /** One that the queue maps by identity operations. */
    @Benchmark
    public long segment() {
        return one(segment);
    }

    /** One of four elements. */
    @Benchmark
    public long fourSegments() {
        return one(four);
    }

    /** A burst of 32 buffers, at both ends. */
    @Benchmark
    public int burst() {
        driver.addInMapped(mapHandles, sizes, tokens, BATCH);
        driver.kickPrepare();
        device.complete(chains, written, device.next(chains, BATCH));
        device.notifyDriver();
        return driver.get(tokens, lengths);
    }
}
