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

    /** Measures. */
    @Descriptor("measure a disk: perf blk0 --rw=randread --bs=4k --iodepth=32 --runtime=5")
    public void perf(CommandSession session, String... args) throws Exception {
        Arguments a = new Arguments(USAGE, args);
        PrintStream out = session.getConsole();
        if (a.help()) {
            out.println("usage: " + USAGE);
            return;
        }
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
        long blocks = disk.capacityBytes() / bs;
        if (bs % disk.blockSize() != 0 || blocks == 0) {
            throw new VirtioException(
                    "--bs=%d on %s, limits are its block size %d and its capacity %d"
                            .formatted(bs, disk.name(), disk.blockSize(), disk.capacityBytes()));
        }
        boolean write = rw.endsWith("write");
        if (write && disk.readOnly()) {
            throw new VirtioException(disk.name() + " is read-only");
        }
        int queue = Integer.parseInt(a.option("queue", "0"));
        boolean poll = mode.equals("poll");
        Histogram latency = new Histogram(60_000_000_000L, 3);
        MemorySegment memory = disk.allocate((long) bs * depth);
        long ios = 0;
        long errors = 0;
        long begin = System.nanoTime();
        long end = begin;
        try (BlockQueue q = disk.openQueue(queue, depth)) {
            MemorySegment[] buffers = new MemorySegment[depth];
            long[] started = new long[depth];
            int[] idle = new int[depth];
            for (int i = 0; i < depth; i++) {
                buffers[i] = memory.asSlice((long) i * bs, bs);
                idle[i] = i;
            }
            int idleCount = depth;
            long[] tokens = new long[depth];
            int[] results = new int[depth];
            SplittableRandom random = new SplittableRandom(1);
            boolean sequential = !rw.startsWith("rand");
            long next = 0;
            long emptyPolls = 0;
            long limit = begin + runtime * 1_000_000_000L;
            long now = begin;
            while (now < limit || idleCount < depth) {
                boolean submitted = false;
                while (now < limit && idleCount > 0) {
                    int slot = idle[idleCount - 1];
                    long block = sequential ? next++ % blocks : random.nextLong(blocks);
                    boolean fits =
                            write
                                    ? q.write(block * bs, buffers[slot], slot)
                                    : q.read(block * bs, buffers[slot], slot);
                    if (!fits) {
                        break;
                    }
                    started[slot] = now;
                    idleCount--;
                    submitted = true;
                }
                if (submitted) {
                    q.submit();
                }
                int n = poll ? q.poll(tokens, results) : q.await(tokens, results, 1000);
                now = System.nanoTime();
                for (int i = 0; i < n; i++) {
                    int slot = (int) tokens[i];
                    latency.recordValue(Math.min(now - started[slot], 59_000_000_000L));
                    errors += results[i] == BlockQueue.OK ? 0 : 1;
                    idle[idleCount++] = slot;
                }
                ios += n;
                if (n == 0 && poll) {
                    if (++emptyPolls % POLLS_PER_YIELD == 0) {
                        Thread.yield(); // The device may be waiting for this very processor.
                    } else {
                        Thread.onSpinWait();
                    }
                }
            }
            end = now;
        } finally {
            disk.free(memory);
        }
        double seconds = (end - begin) / 1e9;
        Map<String, Long> percentiles = new LinkedHashMap<>();
        percentiles.put("p50", latency.getValueAtPercentile(50));
        percentiles.put("p99", latency.getValueAtPercentile(99));
        percentiles.put("p99.9", latency.getValueAtPercentile(99.9));
        percentiles.put("max", latency.getMaxValue());
        return new Result(
                disk.name(),
                rw,
                bs,
                depth,
                mode,
                seconds,
                ios,
                errors,
                ios / seconds,
                ios * (double) bs / seconds,
                percentiles);
    }
}
