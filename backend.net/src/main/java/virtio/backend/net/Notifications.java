package virtio.backend.net;

import virtio.api.backend.DeviceQueue;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.concurrent.locks.LockSupport;

/**
 * When a card's driver is told of used buffers (virtio 5.1.6.5.9). The commands come by one thread,
 * each queue counts on its own, and one more thread sees to it that none waits for too long; it
 * starts with the first delay that is wanted.
 */
final class Notifications {
    /** As after a reset: at once. */
    private static final Delay NONE = new Delay(0, 0);

    /**
     * What a command says, each of 32 bits without a sign.
     *
     * @param maxPackets 0 for at once
     * @param maxMicros 0 for at once
     */
    record Delay(int maxPackets, int maxMicros) {
        boolean none() {
            return maxPackets == 0 || maxMicros == 0;
        }

        private boolean reached(int packets) {
            return Integer.compareUnsigned(packets, maxPackets) >= 0;
        }

        private long nanos() {
            return TimeUnit.MICROSECONDS.toNanos(Integer.toUnsignedLong(maxMicros));
        }
    }

    private final String name;
    private final AtomicReferenceArray<Queue> queues;

    /** What a queue starts with. */
    private volatile Delay receive = NONE;

    private volatile Delay send = NONE;
    private volatile Thread thread;
    private volatile boolean closed;

    Notifications(String name, int queueCount) {
        this.name = name;
        queues = new AtomicReferenceArray<>(queueCount);
    }

    /** There is a new driver. */
    void reset() {
        receive = NONE;
        send = NONE;
    }

    Queue started(DeviceQueue queue) {
        Queue q = new Queue(queue, transmits(queue.index()) ? send : receive);
        queues.set(queue.index(), q);
        return q;
    }

    void stopped(int index) {
        queues.set(index, null);
    }

    private static boolean transmits(int index) {
        return index % 2 == 1;
    }

    /** For all queues that send, or that receive. */
    void set(boolean transmit, Delay delay) {
        if (transmit) {
            send = delay;
        } else {
            receive = delay;
        }
        for (int i = 0; i < queues.length(); i++) {
            if (transmits(i) == transmit) {
                set(i, delay);
            }
        }
    }

    /** For one queue; false when it does not run. */
    boolean set(int index, Delay delay) {
        Queue q = index < queues.length() ? queues.get(index) : null;
        if (q == null) {
            return false;
        }
        if (!delay.none()) {
            start();
        }
        q.delay = delay;
        // What waits may have waited for long enough now.
        q.queue.schedule();
        return true;
    }

    /** Of one queue; null when it does not run. */
    Delay get(int index) {
        Queue q = index < queues.length() ? queues.get(index) : null;
        return q == null ? null : q.delay;
    }

    private synchronized void start() {
        if (thread == null && !closed) {
            thread = Thread.ofPlatform().name("virtio-notify-" + name).daemon().start(this::run);
        }
    }

    /** Has queues served whose time has come. */
    private void run() {
        while (!closed) {
            long now = System.nanoTime();
            long next = Long.MAX_VALUE;
            for (int i = 0; i < queues.length(); i++) {
                Queue q = queues.get(i);
                if (q != null && q.due) {
                    long left = q.dueNanos - now;
                    if (left > 0) {
                        next = Math.min(next, left);
                    } else {
                        q.due = false;
                        q.queue.schedule();
                    }
                }
            }
            LockSupport.parkNanos(this, next);
        }
    }

    synchronized void close() {
        closed = true;
        LockSupport.unpark(thread);
    }

    /** Of one running queue; used by its thread. */
    final class Queue {
        private final DeviceQueue queue;
        private volatile Delay delay;

        /** Whether the queue is to be served at {@link #dueNanos}. */
        private volatile boolean due;

        private volatile long dueNanos;

        /** Packets that the driver has not been told of. */
        private int waiting;

        private long since;

        private Queue(DeviceQueue queue, Delay delay) {
            this.queue = queue;
            this.delay = delay;
            if (!delay.none()) {
                start();
            }
        }

        /** A packet was received or sent: its buffers are used. */
        void used() {
            Delay d = delay;
            if (d.none()) {
                return;
            }
            if (waiting++ == 0) {
                since = System.nanoTime();
            }
            if (d.reached(waiting)) {
                tell();
            }
        }

        private void tell() {
            waiting = 0;
            due = false;
            queue.notifyDriver();
        }

        /** All that was available is done; to be called even when there was nothing. */
        void settle() {
            Delay d = delay;
            queue.holdNotifications(!d.none());
            if (d.none()) {
                waiting = 0;
            } else if (waiting != 0) {
                long end = since + d.nanos();
                if (d.reached(waiting) || System.nanoTime() - end >= 0) {
                    tell();
                } else if (!due || dueNanos != end) {
                    dueNanos = end;
                    due = true;
                    LockSupport.unpark(thread);
                }
            }
        }
    }
}
