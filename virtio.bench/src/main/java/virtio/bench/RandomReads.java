package virtio.bench;

import com.sun.management.ThreadMXBean;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;

import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.concurrent.atomic.AtomicLong;

/**
 * 4 KiB random reads at a constant depth; the same loop as that of {@code blkio_bench.c}, latencies
 * recorded alike, so that both programs do the same work around the disk.
 */
final class RandomReads {
    static final int BLOCK_BYTES = 4096;
    private static final long WARM_NANOS = 200_000_000;
    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

    /**
     * What a run saw.
     *
     * @param allocatedBytes by all threads of the process, while it was measured
     */
    record Result(double seconds, long ios, long p50Nanos, long p99Nanos, long allocatedBytes) {
        double iops() {
            return ios / seconds;
        }
    }

    private final BlockDevice disk;
    private final int depth;
    private final boolean poll;

    /** Log-linear: 32 buckets per power of two, so 3 % wide. */
    private final int[] histogram = new int[64 * 64];

    private final AtomicLong longestGapNanos = new AtomicLong();
    private volatile long completed;
    private volatile boolean stopping;
    private long random = 88172645463325252L;

    RandomReads(BlockDevice disk, int depth, boolean poll) {
        this.disk = disk;
        this.depth = depth;
        this.poll = poll;
    }

    /** Ends {@link #run} early; from any thread. */
    void stop() {
        stopping = true;
    }

    /** Reads done, the warm-up's included; from any thread. */
    long completed() {
        return completed;
    }

    /** The longest time without a completion since this was called last; from any thread. */
    long takeLongestGapNanos() {
        return longestGapNanos.getAndSet(0);
    }

    Result run(double seconds) throws VirtioException, InterruptedException {
        MemorySegment memory = disk.allocate((long) BLOCK_BYTES * depth);
        try (BlockQueue queue = disk.openQueue(0, depth)) {
            MemorySegment[] buffers = new MemorySegment[depth];
            for (int i = 0; i < depth; i++) {
                buffers[i] = memory.asSlice((long) i * BLOCK_BYTES, BLOCK_BYTES);
            }
            return run(queue, buffers, (long) (seconds * 1e9));
        } finally {
            disk.free(memory);
        }
    }

    private Result run(BlockQueue queue, MemorySegment[] buffers, long nanos)
            throws VirtioException, InterruptedException {
        long blocks = disk.capacityBytes() / BLOCK_BYTES;
        long[] tokens = new long[depth];
        int[] results = new int[depth];
        long[] submitted = new long[depth];
        long now = System.nanoTime();
        long warm = now + WARM_NANOS;
        long end = warm + nanos;
        long start = 0;
        long ios = 0;
        long total = 0;
        long allocated = 0;
        for (int i = 0; i < depth; i++) {
            submitted[i] = now;
            queue.read(below(blocks) * BLOCK_BYTES, buffers[i], i);
        }
        while (now < end && !stopping) {
            queue.submit();
            int n = poll ? queue.poll(tokens, results) : queue.await(tokens, results, 1000);
            if (n == 0) {
                Thread.onSpinWait();
                continue;
            }
            long before = now;
            now = System.nanoTime();
            if (now - before > longestGapNanos.getPlain()) {
                longestGapNanos.set(now - before);
            }
            if (start == 0 && now >= warm) {
                start = now;
                end = start + nanos;
                ios = 0;
                java.util.Arrays.fill(histogram, 0);
                allocated = THREADS.getTotalThreadAllocatedBytes();
            }
            for (int i = 0; i < n; i++) {
                int slot = (int) tokens[i];
                if (results[i] != BlockQueue.OK) {
                    throw new VirtioException(
                            "a read ended with result %d, %s"
                                    .formatted(results[i], queue.goneReason()));
                }
                record(now - submitted[slot]);
                submitted[slot] = now;
                queue.read(below(blocks) * BLOCK_BYTES, buffers[slot], slot);
            }
            ios += n;
            total += n;
            completed = total;
        }
        allocated = THREADS.getTotalThreadAllocatedBytes() - allocated;
        return new Result(
                (now - start) / 1e9, ios, percentile(0.5, ios), percentile(0.99, ios), allocated);
    }

    private long below(long bound) {
        long next = random;
        next ^= next << 13;
        next ^= next >>> 7;
        next ^= next << 17;
        random = next;
        return Math.unsignedMultiplyHigh(next, bound);
    }

    private void record(long nanos) {
        int power = nanos < 64 ? 0 : 58 - Long.numberOfLeadingZeros(nanos);
        histogram[power * 64 + (int) (nanos >>> power)]++;
    }

    private long percentile(double p, long count) {
        long seen = 0;
        for (int i = 0; i < histogram.length; i++) {
            seen += histogram[i];
            if (seen > 0 && seen >= p * count) {
                return (long) (i % 64) << (i / 64);
            }
        }
        return 0;
    }
}
