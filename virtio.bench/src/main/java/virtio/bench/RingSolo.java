package virtio.bench;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.map.DeviceMapping;
import virtio.api.map.IdentityMapOps;
import virtio.api.transport.DriverMemory;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * Nanoseconds per buffer of both ends of a ring of 256 in one thread, batches of 32: {@code
 * RingSolo [split|packed] [premapped|mapped] [plain|event] [single|burst] [elements]}.
 *
 * <p>One combination per JVM, so that profiles do not mix. Prints the best, median and worst of the
 * rounds after warm-up.
 */
public final class RingSolo {
    private static final int SIZE = 256;
    private static final int BATCH = 32;
    private static final int ROUNDS = 12_000;
    private static final int BATCHES_PER_ROUND = 200;

    private final Virtqueue driver;
    private final DeviceEnd device;
    private final ScatterList list;
    private final MemorySegment buffer;
    private final boolean mapped;
    private final boolean burst;
    private final boolean rebuild;
    private final int elements;
    private final Chain chain;
    private final long[] tokens = new long[BATCH];
    private final int[] lengths = new int[BATCH];

    private RingSolo(String[] args) throws Exception {
        var words = Arrays.asList(args);
        mapped = words.contains("mapped");
        burst = words.contains("burst");
        rebuild = words.contains("rebuild");
        elements =
                words.stream()
                        .filter(w -> w.matches("\\d+"))
                        .mapToInt(Integer::parseInt)
                        .findFirst()
                        .orElse(1);
        Features features = Features.of(Feature.VERSION_1);
        if (words.contains("event")) {
            features = features.with(Feature.EVENT_IDX);
        }
        if (words.contains("packed")) {
            features = features.with(Feature.RING_PACKED);
        }
        if (words.contains("indirect")) {
            features = features.with(Feature.INDIRECT_DESC);
        }
        var token = IdentityMapOps.token(4 << 20, 1 << 20);
        var mapping = new DeviceMapping(new IdentityMapOps(), token);
        var end =
                DriverEnd.create(
                        0,
                        new QueueRequest("solo", SIZE, null),
                        SIZE,
                        features,
                        mapping,
                        null,
                        (queue, reason) -> {
                            throw new AssertionError(reason);
                        });
        driver = end;
        device = DeviceEnd.start(0, end.layout(), features, new Everything(), null);
        list = new ScatterList(elements);
        buffer = Arena.global().allocate(4096, 64);
        chain = device.newChain();
        build();
    }

    public static void main(String[] args) throws Exception {
        RingSolo solo = new RingSolo(args);
        double[] nanos = new double[ROUNDS];
        for (int round = 0; round < ROUNDS; round++) {
            long start = System.nanoTime();
            for (int i = 0; i < BATCHES_PER_ROUND; i++) {
                solo.batch();
            }
            nanos[round] = (System.nanoTime() - start) / (double) (BATCHES_PER_ROUND * BATCH);
        }
        double[] measured = Arrays.copyOfRange(nanos, ROUNDS / 4, ROUNDS);
        Arrays.sort(measured);
        System.out.printf(
                "%s: ns per buffer min %.2f median %.2f max %.2f%n",
                String.join(" ", args),
                measured[0],
                measured[measured.length / 2],
                measured[measured.length - 1]);
    }

    private void build() {
        list.clear();
        for (int e = 0; e < elements; e++) {
            if (mapped) {
                list.out(buffer, 0, 64);
            } else {
                list.outMapped(4096, 64);
            }
        }
    }

    private void batch() {
        for (int i = 0; i < BATCH; i++) {
            if (rebuild) {
                build();
            }
            if (!driver.add(list, i)) {
                throw new AssertionError("full");
            }
        }
        driver.kickPrepare();
        while (device.next(chain)) {
            device.complete(chain, 0);
        }
        if (burst) {
            if (driver.get(tokens, lengths) != BATCH) {
                throw new AssertionError("short burst");
            }
        } else {
            for (int i = 0; i < BATCH; i++) {
                if (driver.get() == Virtqueue.NONE) {
                    throw new AssertionError("nothing used: " + driver.broken());
                }
            }
        }
    }

    /** The device shares the address space. */
    private static final class Everything implements DriverMemory {
        @Override
        public long translate(long mapHandle, long length, boolean write) {
            return mapHandle;
        }

        @Override
        public long reach(long mapHandle, boolean write) {
            return Long.MAX_VALUE;
        }
    }
}
