package virtio.transport.mmio;

import virtio.api.transport.QueueLayout;

import java.util.concurrent.locks.LockSupport;

/**
 * A queue of an emulated window: its registers, and while it is ready the thread that serves it.
 *
 * <p>Waking the thread is one store and one load, and an unpark when it sleeps: no allocation, no
 * lock.
 */
final class WindowQueue implements Runnable {
    /**
     * How long the thread looks for the next notification before it sleeps: as long as it takes to
     * wake it, 30 to 50 microseconds on a virtual machine, so that a wrong guess costs twice that.
     */
    private static final long SPIN_NANOS = 50_000;

    /** How often it looks between two looks at the clock. */
    private static final int LOOKS = 64;

    private final EmulatedWindow window;
    final int index;

    volatile boolean ready;
    volatile boolean resetting;
    private int size;
    private long descriptorArea;
    private long driverArea;
    private long deviceArea;

    private volatile Thread thread;
    private volatile boolean stop;

    // Each on a line of its own would be better still; notified is written by the driver's thread.
    private volatile boolean notified;
    private volatile boolean sleeping;

    WindowQueue(EmulatedWindow window, int index) {
        this.window = window;
        this.index = index;
    }

    /** Writes size or an area's address; what is no such register is ignored. */
    void write(int offset, int value) {
        switch (offset) {
            case MmioRegisters.QUEUE_SIZE -> size = value;
            case MmioRegisters.QUEUE_DESC_LOW -> descriptorArea = low(descriptorArea, value);
            case MmioRegisters.QUEUE_DESC_HIGH -> descriptorArea = high(descriptorArea, value);
            case MmioRegisters.QUEUE_DRIVER_LOW -> driverArea = low(driverArea, value);
            case MmioRegisters.QUEUE_DRIVER_HIGH -> driverArea = high(driverArea, value);
            case MmioRegisters.QUEUE_DEVICE_LOW -> deviceArea = low(deviceArea, value);
            case MmioRegisters.QUEUE_DEVICE_HIGH -> deviceArea = high(deviceArea, value);
            default -> {}
        }
    }

    private static long low(long address, int value) {
        return address & ~0xffff_ffffL | Integer.toUnsignedLong(value);
    }

    private static long high(long address, int value) {
        return address & 0xffff_ffffL | (long) value << 32;
    }

    int size() {
        return size;
    }

    QueueLayout layout() {
        return new QueueLayout(size, descriptorArea, driverArea, deviceArea);
    }

    /** Registers as after a reset of the device or the queue. */
    void clear() {
        size = 0;
        descriptorArea = 0;
        driverArea = 0;
        deviceArea = 0;
        ready = false;
    }

    void start(String name) {
        stop = false;
        notified = false;
        thread = Thread.ofPlatform().daemon().name(name).start(this);
    }

    /** No call of the device begins after this but one that has begun to begin. */
    void halt() {
        stop = true;
    }

    /** Ends the thread, after {@link #halt}; the caller is not that thread. */
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

    @Override
    public void run() {
        while (!stop) {
            if (notified && window.isDriverOk()) {
                notified = false;
                window.serve(index);
            } else {
                awaitWork();
            }
        }
    }

    private void awaitWork() {
        long end = System.nanoTime() + SPIN_NANOS;
        do {
            for (int i = 0; i < LOOKS; i++) {
                if (notified || stop) {
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
        return stop || notified && window.isDriverOk();
    }
}
