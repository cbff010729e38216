package virtio.itest;

import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** Waiting for what somebody else's thread or process does. */
final class Wait {
    private static final long LIMIT_SECONDS = 30;

    private Wait() {}

    /** Looks again and again, for at most 30 seconds. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        long start = System.nanoTime();
        while (!condition.call()) {
            if (System.nanoTime() - start > TimeUnit.SECONDS.toNanos(LIMIT_SECONDS)) {
                throw new AssertionError("not within " + LIMIT_SECONDS + " s: " + what);
            }
            Thread.sleep(2);
        }
    }
}
