package virtio.api.transport;

import java.util.concurrent.locks.ReentrantLock;

/**
 * An interrupt line of an {@link EmulatedDevice}, or a vector: the thread that raises it runs the
 * driver's handler, one at a time.
 *
 * <p>Thread-safe. {@link #raise} allocates nothing.
 */
public final class InterruptLine {
    private final ReentrantLock handling = new ReentrantLock();
    private volatile Runnable handler;

    /** The handler itself raised the line; guarded by {@link #handling}. */
    private boolean again;

    /** A line that nobody listens to. */
    InterruptLine() {}

    /** What to run from now on; null for nothing, and then no handler is running on return. */
    public void handler(Runnable handler) {
        handling.lock();
        this.handler = handler;
        handling.unlock();
    }

    /** Runs the handler; in the handler itself, runs it once more afterwards. */
    public void raise() {
        if (isHandling()) {
            again = true;
            return;
        }
        handling.lock();
        try {
            do {
                again = false;
                Runnable runs = handler;
                if (runs != null) {
                    runs.run();
                }
            } while (again);
        } finally {
            handling.unlock();
        }
    }

    /** Whether the current thread is in the handler. */
    boolean isHandling() {
        return handling.isHeldByCurrentThread();
    }
}
