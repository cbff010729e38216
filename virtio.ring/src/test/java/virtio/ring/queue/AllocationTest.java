package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.map.CoherentMemory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;

/** The steady state of both ends allocates nothing. */
@Tag("unchecked")
class AllocationTest {
    private static final com.sun.management.ThreadMXBean THREADS =
            (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();

    static Iterable<Features> features() {
        return EndToEndTest.rings();
    }

    @ParameterizedTest
    @MethodSource("features")
    void nothingIsAllocated(Features features) throws Exception {
        try (Arena arena = Arena.ofShared();
                Rig rig = EndToEndTest.rig("bounce", features).start(64)) {
            MemorySegment memory = arena.allocate(256, 8);
            MemorySegment copy = arena.allocate(64, 8);
            ScatterList list = new ScatterList(4);
            Chain chain = rig.device.newChain();
            long[] tokens = new long[8];
            int[] lengths = new int[8];
            CoherentMemory premapped = rig.mapped.mapping().alloc(64);
            long[] mapHandles = {premapped.mapHandle(), premapped.mapHandle() + 32};
            int[] sizes = {16, 16};
            long[] given = {3, 4};
            long least = Long.MAX_VALUE;
            // Until it is compiled, however long a busy machine takes for that.
            long end = System.nanoTime() + 30_000_000_000L;
            while (least > 0 && System.nanoTime() - end < 0) {
                long before = THREADS.getCurrentThreadAllocatedBytes();
                for (int i = 0; i < 500; i++) {
                    rig.driver.add(list.clear().out(memory, 0, 16), 1);
                    rig.driver.add(
                            list.clear().out(memory, 0, 16).in(memory, 32, 8).in(memory, 64, 8), 2);
                    rig.driver.addOutMapped(mapHandles, sizes, given, 2);
                    rig.driver.kick();
                    while (rig.device.next(chain)) {
                        chain.read(0, copy, 0, 16);
                        long written = chain.writableBytes();
                        chain.write(0, copy, 0, written);
                        rig.device.complete(chain, written);
                    }
                    rig.device.notifyDriver();
                    if (!rig.driver.enableCallback()) {
                        assertTrue(rig.driver.get() != Virtqueue.NONE);
                        assertTrue(rig.driver.get(tokens, lengths) > 0);
                    }
                }
                least = Math.min(least, THREADS.getCurrentThreadAllocatedBytes() - before);
            }
            rig.mapped.mapping().free(premapped);
            assertEquals(0, least, "bytes in the best round of 500 batches");
        }
    }
}
