package virtio.transport.pci;

import virtio.api.transport.QueueLayout;

import java.util.concurrent.locks.LockSupport;

/**
 * A queue of an emulated function: its registers, and while it is ready the thread that serves it.
 *
 * <p>Waking the thread is one store and one load, and an unpark when it sleeps: no allocation, no
 * lock.
 */
final class FunctionQueue implements Runnable {
    /**
     * How long the thread looks for the next notification before it sleeps: as long as it takes to
     * wake it, 30 to 50 microseconds on a virtual machine, so that a wrong guess costs twice that.
     */
    private static final long SPIN_NANOS = 50_000;

    /** How often it looks between two looks at the clock. */
    private static final int LOOKS = 64;

    private final EmulatedFunction function;
    final int index;

    volatile boolean ready;
    volatile boolean resetting;
    volatile int vector;
    private int size;
    private long descriptorArea;
    private long driverArea;
    private long deviceArea;

    private volatile Thread thread;
    private volatile boolean stop;

    // Each on a line of its own would be better still; notified is written by the driver's thread.
    private volatile boolean notified;
    private volatile boolean sleeping;

    FunctionQueue(EmulatedFunction function, int index) {
        this.function = function;
        this.index = index;
    }

    /** Writes size, vector or half an area's address; what is no such register is ignored. */
    void write(int offset, int value) {
        switch (offset) {
            case PciRegisters.QUEUE_SIZE -> size = value;
            case PciRegisters.QUEUE_DESC -> descriptorArea = low(descriptorArea, value);
            case PciRegisters.QUEUE_DESC + 4 -> descriptorArea = high(descriptorArea, value);
            case PciRegisters.QUEUE_DRIVER -> driverArea = low(driverArea, value);
            case PciRegisters.QUEUE_DRIVER + 4 -> driverArea = high(driverArea, value);
            case PciRegisters.QUEUE_DEVICE -> deviceArea = low(deviceArea, value);
            case PciRegisters.QUEUE_DEVICE + 4 -> deviceArea = high(deviceArea, value);
            default -> {}
        }
    }

    /** Reads back what was written. */
    int read(int offset) {
        return switch (offset) {
            case PciRegisters.QUEUE_SIZE -> size;
            case PciRegisters.QUEUE_MSIX_VECTOR -> vector;
            case PciRegisters.QUEUE_ENABLE -> ready ? 1 : 0;
            case PciRegisters.QUEUE_RESET -> resetting ? 1 : 0;
            case PciRegisters.QUEUE_NOTIFY_OFF -> index;
            case PciRegisters.QUEUE_DESC -> (int) descriptorArea;
            case PciRegisters.QUEUE_DESC + 4 -> (int) (descriptorArea >>> 32);
            case PciRegisters.QUEUE_DRIVER -> (int) driverArea;
            case PciRegisters.QUEUE_DRIVER + 4 -> (int) (driverArea >>> 32);
            case PciRegisters.QUEUE_DEVICE -> (int) deviceArea;
            case PciRegisters.QUEUE_DEVICE + 4 -> (int) (deviceArea >>> 32);
            default -> 0;
        };
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

    /** Registers as after a reset of the device or the queue: its size is the most it can have. */
    void clear(int maxSize) {
        size = maxSize;
        vector = PciRegisters.NO_VECTOR;
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
            if (notified && function.runs()) {
                notified = false;
                function.serve(index);
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
        return stop || notified && function.runs();
    }
}
