package virtio.transport.mmio;

import java.util.concurrent.locks.ReentrantLock;

/**
 * The interrupt line of an emulated window: the thread that raises it runs the driver's handler,
 * one at a time.
 */
final class InterruptLine {
    private final ReentrantLock handling = new ReentrantLock();
    private volatile RegisterWindow.Driver driver;

    /** The handler itself raised the line; guarded by {@link #handling}. */
    private boolean again;

    /** Whose handler to run; null for nobody's, and then none is running on return. */
    void driver(RegisterWindow.Driver driver) {
        handling.lock();
        this.driver = driver;
        handling.unlock();
    }

    RegisterWindow.Driver driver() {
        return driver;
    }

    void raise() {
        if (isHandling()) {
            again = true;
            return;
        }
        handling.lock();
        try {
            do {
                again = false;
                RegisterWindow.Driver handler = driver;
                if (handler != null) {
                    handler.interrupt();
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
