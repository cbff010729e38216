package virtio.transport.pci;

import java.util.concurrent.locks.ReentrantLock;

/**
 * One vector of an emulated function, or its pin: the thread that raises it runs the driver's
 * handler, one at a time.
 */
final class InterruptLine {
    private final int vector;
    private final ReentrantLock handling = new ReentrantLock();
    private volatile PciFunction.Driver driver;

    /** The handler itself raised it; guarded by {@link #handling}. */
    private boolean again;

    InterruptLine(int vector) {
        this.vector = vector;
    }

    /** Whose handler to run; null for nobody's, and then none is running on return. */
    void driver(PciFunction.Driver driver) {
        handling.lock();
        this.driver = driver;
        handling.unlock();
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
                PciFunction.Driver handler = driver;
                if (handler != null) {
                    handler.interrupt(vector);
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
