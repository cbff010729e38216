package virtio.shell;

import org.HdrHistogram.Histogram;
import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;

import java.io.PrintStream;
import java.lang.foreign.MemorySegment;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;

/** Measures a disk, in fio's words. */
@Component(
        service = Perf.class,
        property = {"osgi.command.scope=virtio", "osgi.command.function=perf"})
public final class Perf {
    private static final String USAGE =
            "perf NAME [--rw=randread|randwrite|read|write] [--bs=4k] [--iodepth=32]"
                    + " [--runtime=5] [--mode=poll|interrupt] [--queue=0] [--json]";

    private static final int POLLS_PER_YIELD = 1024;

    private final Disks disks;

    /** Among the container's disks. */
    @Activate
    public Perf(@Reference Disks disks) {
        this.disks = disks;
    }

    /** What a run was asked for and what it saw. */
    private record Result(
            String name,
            String rw,
            int bs,
            int iodepth,
            String mode,
            double seconds,
            long ios,
            long errors,
            double iops,
            double bytesPerSecond,
            Map<String, Long> latencyNanos) {}

    @Descriptor("measure a disk: perf blk0 --rw=randread --bs=4k --iodepth=32 --runtime=5")
    public void perf(CommandSession session, String... args) throws Exception {
        Arguments a = Arguments.of(session, USAGE, args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        String rw =
                oneOf("rw", a.option("rw", "randread"), "randread", "randwrite", "read", "write");
        String mode = oneOf("mode", a.option("mode", "poll"), "poll", "interrupt");
        BlockDevice disk = disks.get(a.get(0));
        Result r = run(disk, rw, mode, a);
        if (a.has("json")) {
            out.println(Json.of(r));
        } else {
            out.printf("%s: %s, bs %d, iodepth %d, %s mode%n", r.name, rw, r.bs, r.iodepth, mode);
            out.printf(
                    "  %.0f IOPS, %.1f MB/s, %d requests in %.2f s%n",
                    r.iops, r.bytesPerSecond / 1e6, r.ios, r.seconds);
            out.print("  latency");
            r.latencyNanos.forEach((p, ns) -> out.printf("  %s %.1f us", p, ns / 1e3));
            out.println();
        }
        if (r.errors > 0) {
            throw new VirtioException("%d of %d requests failed".formatted(r.errors, r.ios));
        }
    }

    private static String oneOf(String option, String value, String... known) {
        for (String one : known) {
            if (one.equals(value)) {
                return value;
            }
        }
        throw new IllegalArgumentException(
                "--%s=%s, it is one of %s".formatted(option, value, String.join(", ", known)));
    }

    private static Result run(BlockDevice disk, String rw, String mode, Arguments a)
            throws VirtioException, InterruptedException {
        int bs = a.bytes("bs", "4k");
        int depth = a.number("iodepth", 32);
        int runtime = a.number("runtime", 5);
        int queue = a.number("queue", 0, 0);
        if (bs % disk.blockSize() != 0 || disk.capacityBytes() < bs) {
            throw new VirtioException(
                    "--bs=%d on %s, limits are its block size %d and its capacity %d"
                            .formatted(bs, disk.name(), disk.blockSize(), disk.capacityBytes()));
        }
        if (rw.endsWith("write") && disk.readOnly()) {
            throw new VirtioException(disk.name() + " is read-only");
        }
        Requests requests;
        double seconds;
        MemorySegment memory = disk.allocate((long) bs * depth);
        try (BlockQueue q = disk.openQueue(queue, depth)) {
            requests = new Requests(q, rw, bs, disk.capacityBytes() / bs, memory);
            seconds = requests.drive(TimeUnit.SECONDS.toNanos(runtime), mode.equals("poll")) / 1e9;
        } finally {
            disk.free(memory);
        }
        return new Result(
                disk.name(),
                rw,
                bs,
                depth,
                mode,
                seconds,
                requests.done,
                requests.errors,
                requests.done / seconds,
                requests.done * (double) bs / seconds,
                requests.latency());
    }

    /** Requests to one queue, as many in flight as there are buffers. */
    private static final class Requests {
        private static final long MAX_LATENCY_NANOS = 60_000_000_000L;

        private final BlockQueue queue;
        private final boolean write;
        private final boolean sequential;
        private final int bytes;
        private final long blocks;
        private final MemorySegment[] buffers;
        private final long[] started;
        private final long[] tokens;
        private final int[] results;

        /** Numbers of buffers that are in no request; the first {@link #idleCount} count. */
        private final int[] idle;

        private final SplittableRandom random = new SplittableRandom(1);
        private final Histogram latency = new Histogram(MAX_LATENCY_NANOS, 3);
        private int idleCount;
        private long next;
        private long done;
        private long errors;

        Requests(BlockQueue queue, String rw, int bytes, long blocks, MemorySegment memory) {
            this.queue = queue;
            this.bytes = bytes;
            this.blocks = blocks;
            write = rw.endsWith("write");
            sequential = !rw.startsWith("rand");
            idleCount = (int) (memory.byteSize() / bytes);
            buffers = new MemorySegment[idleCount];
            started = new long[idleCount];
            tokens = new long[idleCount];
            results = new int[idleCount];
            idle = new int[idleCount];
            for (int i = 0; i < idleCount; i++) {
                buffers[i] = memory.asSlice((long) i * bytes, bytes);
                idle[i] = i;
            }
        }

        /** Returns the nanoseconds until the last one was done. */
        long drive(long runtimeNanos, boolean poll) throws InterruptedException {
            long begin = System.nanoTime();
            long now = begin;
            long emptyPolls = 0;
            while (now - begin < runtimeNanos || idleCount < buffers.length) {
                if (now - begin < runtimeNanos) {
                    submit(now);
                }
                int n = poll ? queue.poll(tokens, results) : queue.await(tokens, results, 1000);
                now = System.nanoTime();
                collect(n, now);
                if (n == 0 && poll) {
                    if (++emptyPolls % POLLS_PER_YIELD == 0) {
                        Thread.yield(); // The device may be waiting for this very processor.
                    } else {
                        Thread.onSpinWait();
                    }
                }
            }
            return now - begin;
        }

        private void submit(long now) {
            boolean submitted = false;
            while (idleCount > 0) {
                int slot = idle[idleCount - 1];
                long offset = (sequential ? next++ % blocks : random.nextLong(blocks)) * bytes;
                if (!(write
                        ? queue.write(offset, buffers[slot], slot)
                        : queue.read(offset, buffers[slot], slot))) {
                    break;
                }
                started[slot] = now;
                idleCount--;
                submitted = true;
            }
            if (submitted) {
                queue.submit();
            }
        }

        private void collect(int count, long now) {
            for (int i = 0; i < count; i++) {
                int slot = (int) tokens[i];
                latency.recordValue(Math.min(now - started[slot], MAX_LATENCY_NANOS));
                errors += results[i] == BlockQueue.OK ? 0 : 1;
                idle[idleCount++] = slot;
            }
            done += count;
        }

        Map<String, Long> latency() {
            Map<String, Long> percentiles = new LinkedHashMap<>();
            percentiles.put("p50", latency.getValueAtPercentile(50));
            percentiles.put("p99", latency.getValueAtPercentile(99));
            percentiles.put("p99.9", latency.getValueAtPercentile(99.9));
            percentiles.put("max", latency.getMaxValue());
            return percentiles;
        }
    }
}
