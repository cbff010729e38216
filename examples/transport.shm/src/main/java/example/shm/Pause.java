package example.shm;

import java.util.concurrent.locks.LockSupport;

/**
 * How a thread that polls waits: it looks without a pause for a while, and then with pauses that
 * double up to the longest one.
 *
 * <p>That is the price of a file without a descriptor to wait on: an idle end wakes up {@code 1
 * second / longest pause} times a second, and what happens after a quiet time is seen that much
 * later. Used by one thread.
 */
final class Pause {
    /** As long as a thread takes to be woken up, so that a wrong guess costs twice that. */
    private static final long LOOK_NANOS = 50_000;

    private static final long SHORTEST_NANOS = 20_000;
    private final long longestNanos;
    private long idleSince;
    private long pauseNanos;

    Pause(long longestNanos) {
        this.longestNanos = longestNanos;
    }

    /** There was something to do. */
    void worked() {
        pauseNanos = 0;
    }

    /** There was nothing to do: waits a little, longer each time. */
    void idle() {
        if (pauseNanos == 0) {
            pauseNanos = SHORTEST_NANOS;
            idleSince = System.nanoTime();
        } else if (System.nanoTime() - idleSince < LOOK_NANOS) {
            // The other end may wait for this very processor.
            Thread.yield();
        } else {
            LockSupport.parkNanos(this, pauseNanos);
            pauseNanos = Math.min(2 * pauseNanos, longestNanos);
        }
    }
}
