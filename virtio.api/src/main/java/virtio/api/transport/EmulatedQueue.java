package virtio.api.transport;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.VirtioException;

import java.util.Arrays;
import java.util.concurrent.locks.LockSupport;

/**
 * A queue of an {@link EmulatedDevice}: its registers, and while it is ready the thread that serves
 * it.
 *
 * <p>Registers are for one thread at a time. Waking the thread is one store and one load, and an
 * unpark when it sleeps: no allocation, no lock.
 */
public final class EmulatedQueue {
    /**
     * How long the thread looks for the next notification before it sleeps: as long as it takes to
     * wake it, 30 to 50 microseconds on a virtual machine, so that a wrong guess costs twice that.
     */
    private static final long SPIN_NANOS = 50_000;

    /** How often it looks between two looks at the clock. */
    private static final int LOOKS = 64;

    private final EmulatedDevice device;
    private final ExportedDevice exported;
    private final int index;
    private final int resetSize;

    private volatile boolean ready;
    private volatile boolean resetting;
    private int size;
    private final int[] areas = new int[6];

    private volatile Thread thread;
    private volatile boolean halted;

    // Each on a line of its own would be better still; notified is written by the driver's thread.
    private volatile boolean notified;
    private volatile boolean sleeping;

    EmulatedQueue(EmulatedDevice device, ExportedDevice exported, int index, int resetSize) {
        this.device = device;
        this.exported = exported;
        this.index = index;
        this.resetSize = resetSize;
        size = resetSize;
    }

    /** Its number. */
    public int index() {
        return index;
    }

    /** Most descriptors. */
    public int maxSize() {
        return exported.maxQueueSize();
    }

    /** Descriptors, as they were written. */
    public int size() {
        return size;
    }

    /** Sets the descriptors; ignored while the queue is ready. */
    public void size(int descriptors) {
        if (!ready) {
            size = descriptors;
        }
    }

    /**
     * 32 bits of the areas' addresses, as they were written.
     *
     * @param word 0 and 1 for the lower and the upper half of the descriptor area's, 2 and 3 for
     *     the driver area's, 4 and 5 for the device area's
     */
    public int area(int word) {
        return areas[word];
    }

    /** Sets 32 bits of the areas' addresses, as {@link #area(int)}; ignored while it is ready. */
    public void area(int word, int bits) {
        if (!ready) {
            areas[word] = bits;
        }
    }

    /** Whether the device may use the queue. */
    public boolean isReady() {
        return ready;
    }

    /** Whether a reset of the queue goes on. */
    public boolean isResetting() {
        return resetting;
    }

    QueueLayout layout() {
        return new QueueLayout(size, address(0), address(2), address(4));
    }

    private long address(int word) {
        return Integer.toUnsignedLong(areas[word]) | (long) areas[word + 1] << 32;
    }

    /** Registers as after a reset of the device or the queue. */
    void clear() {
        size = resetSize;
        Arrays.fill(areas, 0);
        ready = false;
    }

    /**
     * Has the device use the queue. What refuses it is said in the log, and a driver sees that the
     * queue is not ready; a ready one stays as it is.
     */
    public void start() {
        synchronized (device) {
            if (device.gone() != null || ready) {
                return;
            }
            String refusal = refusal();
            if (refusal != null) {
                device.refused(index, refusal);
                return;
            }
            halted = false;
            notified = false;
            ready = true;
            // Known before it runs: who wakes it would find nobody to unpark.
            Thread serving =
                    Thread.ofPlatform()
                            .daemon()
                            .name(device.threadName("queue " + index))
                            .unstarted(this::run);
            thread = serving;
            serving.start();
            if (device.runs()) {
                wake();
            }
        }
    }

    /** Why the device does not start it, which is asked for last; null when it has. */
    private String refusal() {
        if (!device.has(DeviceStatus.FEATURES_OK)) {
            return "FEATURES_OK is not set";
        }
        if (size <= 0 || size > maxSize()) {
            return "size %d, limits are 1 and %d".formatted(size, maxSize());
        }
        if (device.memory() == null) {
            return "nobody has taken the device";
        }
        try {
            exported.startQueue(index, layout(), device.memory(), device);
            return null;
        } catch (VirtioException e) {
            return e.getMessage();
        }
    }

    /**
     * Has the device use the queue no more; its registers stay. On return no thread is in it.
     *
     * @throws IllegalStateException in the driver's interrupt handler
     */
    public void stop() {
        synchronized (device) {
            if (device.gone() == null && ready) {
                device.refuseOwnThread();
                halt();
                exported.stopQueue(index);
                join();
            }
        }
    }

    /**
     * Resets the queue if it is ready and RING_RESET was accepted (virtio 2.6.1); as {@link #stop}.
     *
     * @return false when nothing was reset
     */
    public boolean reset() {
        synchronized (device) {
            if (device.gone() != null || !ready || !device.accepted().has(Feature.RING_RESET)) {
                return false;
            }
            resetting = true;
            stop();
            clear();
            resetting = false;
            return true;
        }
    }

    /** No call of the device begins after this but one that has begun to begin. */
    void halt() {
        halted = true;
    }

    /** Ends the thread, after {@link #halt}; the queue is not ready. The caller is another one. */
    void join() {
        Thread running = thread;
        if (running != null) {
            LockSupport.unpark(running);
            boolean interrupted = false;
            while (running.isAlive()) {
                try {
                    running.join();
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
            thread = null;
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
        ready = false;
    }

    boolean isOwn(Thread candidate) {
        return candidate == thread;
    }

    /** Has the device serve the queue soon, on its own thread. */
    void wake() {
        notified = true;
        if (sleeping) {
            LockSupport.unpark(thread);
        }
    }

    private void run() {
        while (!halted) {
            if (notified && device.runs()) {
                notified = false;
                device.serve(index);
            } else {
                awaitWork();
            }
        }
    }

    private void awaitWork() {
        long end = System.nanoTime() + SPIN_NANOS;
        do {
            for (int i = 0; i < LOOKS; i++) {
                if (notified || halted) {
                    break;
                }
                Thread.onSpinWait();
            }
            if (hasWork()) {
                return;
            }
            // The driver may have been put aside for this very thread, on the same processor.
            Thread.yield();
        } while (System.nanoTime() - end < 0);
        sleeping = true;
        while (!hasWork()) {
            LockSupport.park(this);
        }
        sleeping = false;
    }

    private boolean hasWork() {
        return halted || notified && device.runs();
    }
}
