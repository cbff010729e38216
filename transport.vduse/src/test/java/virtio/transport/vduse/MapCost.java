package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.sun.management.ThreadMXBean;

import org.junit.jupiter.api.Test;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.linux.Memory;

import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.Arrays;

/**
 * What mapping costs, printed; run by name: {@code mvn -pl transport.vduse -am test -Dtest=MapCost
 * -Dsurefire.failIfNoSpecifiedTests=false}.
 */
class MapCost {
    private static final int ROUNDS = 20;
    private static final long ROUND_NANOS = 50_000_000;

    private final MapOps ops = new VhostVdpaMapOps();
    private final ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();

    private static final class Nobody implements IovaDomain.Shower {
        @Override
        public void change(boolean show, long iova, long bytes, long address) {}

        @Override
        public void begin() {}

        @Override
        public void end() {}
    }

    @Test
    void measure() throws Exception {
        IovaDomain domain =
                new IovaDomain("cost", 64 << 20, Memory.PAGE_BYTES, 0, -1, new Nobody());
        for (int size : new int[] {4096, 131072}) {
            CoherentMemory coherent = ops.alloc(domain, size);
            for (Direction direction : Direction.values()) {
                measure(domain, "bounced", MemorySegment.ofArray(new byte[size]), direction);
                measure(domain, "zero-copy", coherent.segment(), direction);
            }
            ops.free(domain, coherent);
        }
        domain.release();
    }

    private void measure(
            IovaDomain domain, String how, MemorySegment segment, Direction direction) {
        long size = segment.byteSize();
        double[] nanos = new double[ROUNDS];
        long least = Long.MAX_VALUE;
        for (int round = 0; round < ROUNDS; round++) {
            long before = threads.getCurrentThreadAllocatedBytes();
            long start = System.nanoTime();
            long count = 0;
            long time;
            do {
                for (int i = 0; i < 1000; i++) {
                    long handle = ops.mapPage(domain, segment, 0, size, direction, 0);
                    ops.unmapPage(domain, handle, size, direction, 0);
                }
                count += 1000;
                time = System.nanoTime() - start;
            } while (time < ROUND_NANOS);
            least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
            nanos[round] = (double) time / count;
        }
        Arrays.sort(nanos);
        System.out.printf(
                "%s %d bytes %s: %.1f ns for map and unmap, best %.1f, %d bytes allocated%n",
                how, size, direction, nanos[ROUNDS / 2], nanos[0], least);
        assertEquals(0, least / 1000, "bytes for each thousand");
    }
}
