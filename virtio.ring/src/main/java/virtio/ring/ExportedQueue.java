package virtio.ring;

import virtio.api.backend.Backend;
import virtio.api.transport.Export;
import virtio.ring.queue.DeviceEnd;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;

/** A queue of an exported backend while it is served, and the gate that stops it. */
final class ExportedQueue {
    /** How long a backend may take to return from its queue when that is stopped. */
    static final long STOP_MILLIS = 30_000;

    private static final Logger LOG = System.getLogger(ExportedQueue.class.getPackageName());

    private final String name;
    private final Backend backend;
    private final DeviceEnd queue;
    private final Export export;

    /** The one thread that serves the queue. */
    private final AtomicReference<Thread> inside = new AtomicReference<>();

    private volatile boolean again;
    private volatile boolean stopping;

    ExportedQueue(String name, Backend backend, DeviceEnd queue, Export export) {
        this.name = name;
        this.backend = backend;
        this.queue = queue;
        this.export = export;
    }

    void started() {
        contain("queueStarted", () -> backend.queueStarted(queue));
    }

    /** Serves what is available; never throws into the transport's thread. */
    void serve() {
        Thread self = Thread.currentThread();
        again = true;
        // A notification that finds another thread inside leaves its wish with that one.
        while (again && !stopping && inside.compareAndSet(null, self)) {
            again = false;
            try {
                if (!stopping) {
                    queue.serve(backend);
                }
            } catch (RuntimeException | Error e) {
                stopping = true;
                // The JVM's word for an access behind the end of a mapped file.
                boolean cutOff = e instanceof InternalError;
                String what =
                        cutOff
                                ? "its driver has cut off its memory"
                                : "backend %s threw %s".formatted(name, e);
                String reason = "queue %d: %s".formatted(queue.index(), what);
                contain("queueBroken", () -> export.queueBroken(queue.index(), reason));
            } finally {
                inside.set(null);
            }
        }
    }

    /** Has the thread in {@link #serve} leave soon. */
    void quiesce() {
        stopping = true;
        queue.quiesce();
    }

    /**
     * Stops when no thread is inside.
     *
     * @return the next available index
     * @throws IllegalStateException when the thread inside does not leave in time, or is the
     *     caller: its memory must not be unmapped
     */
    int stop() {
        quiesce();
        if (inside.get() == Thread.currentThread()) {
            throw new IllegalStateException(
                    "%s: queue %d cannot be stopped from within the backend"
                            .formatted(name, queue.index()));
        }
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(STOP_MILLIS);
        while (inside.get() != null) {
            if (System.nanoTime() - end > 0) {
                throw new IllegalStateException(
                        "%s: the backend did not return from queue %d within %d ms"
                                .formatted(name, queue.index(), STOP_MILLIS));
            }
            LockSupport.parkNanos(20_000);
        }
        contain("queueStopped", () -> backend.queueStopped(queue));
        return queue.stop();
    }

    private void contain(String method, Runnable call) {
        try {
            call.run();
        } catch (RuntimeException | Error e) {
            LOG.log(Level.WARNING, "{0}: {1} threw {2}", name, method, e.toString());
        }
    }
}
