package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.sun.management.ThreadMXBean;

import java.lang.management.ManagementFactory;

/** What the calling thread allocates. */
final class Allocation {
    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

    interface Body {
        void run() throws Exception;
    }

    private Allocation() {}

    /** Fails unless a compiled {@code body} comes to run 1000 times without allocating. */
    static void assertNone(Body body) throws Exception {
        long bytes = -1;
        // The compiler works beside us, and takes objects away only when it is through.
        long end = System.nanoTime() + 30_000_000_000L;
        while (bytes != 0 && System.nanoTime() - end < 0) {
            for (int i = 0; i < 2000; i++) {
                body.run();
            }
            long before = THREADS.getCurrentThreadAllocatedBytes();
            for (int i = 0; i < 1000; i++) {
                body.run();
            }
            bytes = THREADS.getCurrentThreadAllocatedBytes() - before;
        }
        assertEquals(0, bytes, "bytes in 1000 runs");
    }
}
