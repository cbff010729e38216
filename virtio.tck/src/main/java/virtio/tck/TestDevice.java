package virtio.tck;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;

import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.IntConsumer;

/**
 * A device without a ring, for the device end of a transport: answers as it was told to and
 * remembers what it was asked.
 *
 * <p>Keeps {@link ExportedDevice}'s promise that {@link #stopQueue} and {@link #reset} return when
 * no thread is in {@link #queueNotified}. Thread-safe.
 */
public final class TestDevice implements ExportedDevice {
    /** How long the {@code await} methods wait before they fail. */
    public static final long AWAIT_MILLIS = 10_000;

    /**
     * A queue that was started.
     *
     * @param layout where it lies
     * @param memory the driver's memory
     * @param export the device end that started it
     */
    public record Started(QueueLayout layout, DriverMemory memory, Export export) {}

    /**
     * A call of {@link #queueNotified}.
     *
     * @param queue the queue's number
     * @param thread who called
     */
    public record Notified(int queue, Thread thread) {}

    private final Started[] started;
    private final int[] inside;
    private final byte[] config;
    private final BlockingQueue<Notified> notified = new LinkedBlockingQueue<>();
    private Features offered = Features.of(Feature.VERSION_1);
    private Features accepted;
    private String queueRefusal;
    private boolean refusesFeatures;
    private int maxQueueSize = 256;
    private int generation;
    private int resets;
    private volatile IntConsumer onNotified = queue -> {};

    /** A block device by its number, with a configuration of 0, 1, 2, … */
    public TestDevice(int queueCount, int configBytes) {
        started = new Started[queueCount];
        inside = new int[queueCount];
        config = new byte[configBytes];
        for (int i = 0; i < configBytes; i++) {
            config[i] = (byte) i;
        }
    }

    /** Features to offer instead of VERSION_1 alone. */
    public synchronized TestDevice offer(Features features) {
        offered = features;
        return this;
    }

    /** Most descriptors instead of 256. */
    public synchronized TestDevice maxQueueSize(int size) {
        maxQueueSize = size;
        return this;
    }

    /** Whether to find every choice of features unacceptable. */
    public synchronized void refuseFeatures(boolean refuse) {
        refusesFeatures = refuse;
    }

    /** Refuses to start queues, with that reason; null to start them. */
    public synchronized void refuseQueues(String reason) {
        queueRefusal = reason;
    }

    /** What to do when a queue is notified, on the thread that calls. */
    public void onNotified(IntConsumer action) {
        onNotified = action;
    }

    /** Changes a byte of the configuration, and with it the generation. */
    public synchronized void changeConfig(int offset, int value) {
        config[offset] = (byte) value;
        generation++;
    }

    /** A byte of the configuration. */
    public synchronized int config(int offset) {
        return config[offset] & 0xff;
    }

    /** The driver's choice, null before it and after a reset. */
    public synchronized Features accepted() {
        return accepted;
    }

    /** A queue that is started now, else null. */
    public synchronized Started queue(int queue) {
        return started[queue];
    }

    /** How often the device was reset. */
    public synchronized int resets() {
        return resets;
    }

    /** The next call of {@link #queueNotified}; fails when none comes. */
    public Notified awaitNotified() {
        try {
            Notified next = notified.poll(AWAIT_MILLIS, TimeUnit.MILLISECONDS);
            if (next == null) {
                throw new AssertionError("no queueNotified within %d ms".formatted(AWAIT_MILLIS));
            }
            return next;
        } catch (InterruptedException e) {
            throw new AssertionError("interrupted while waiting for queueNotified", e);
        }
    }

    /** Forgets calls of {@link #queueNotified} that nobody has waited for; how many there were. */
    public int forgetNotified() {
        int count = notified.size();
        notified.clear();
        return count;
    }

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public synchronized Features offered() {
        return offered;
    }

    @Override
    public int queueCount() {
        return started.length;
    }

    @Override
    public synchronized int maxQueueSize() {
        return maxQueueSize;
    }

    @Override
    public int configSize() {
        return config.length;
    }

    @Override
    public synchronized int configGeneration() {
        return generation;
    }

    @Override
    public synchronized void readConfig(int offset, byte[] into) {
        Arrays.fill(into, (byte) 0);
        if (offset < config.length) {
            System.arraycopy(
                    config, offset, into, 0, Math.min(into.length, config.length - offset));
        }
    }

    @Override
    public synchronized void writeConfig(int offset, byte[] from) {
        if (offset < config.length) {
            System.arraycopy(
                    from, 0, config, offset, Math.min(from.length, config.length - offset));
        }
    }

    @Override
    public synchronized boolean accept(Features features) {
        if (refusesFeatures) {
            return false;
        }
        accepted = features;
        return true;
    }

    @Override
    public synchronized void startQueue(
            int queue, QueueLayout layout, DriverMemory memory, Export export)
            throws VirtioException {
        if (queueRefusal != null) {
            throw new VirtioException(queueRefusal);
        }
        if (started[queue] != null) {
            throw new AssertionError("queue %d is started twice".formatted(queue));
        }
        started[queue] = new Started(layout, memory, export);
    }

    @Override
    public void queueNotified(int queue) {
        synchronized (this) {
            if (started[queue] == null) {
                return;
            }
            inside[queue]++;
        }
        try {
            notified.add(new Notified(queue, Thread.currentThread()));
            onNotified.accept(queue);
        } finally {
            synchronized (this) {
                inside[queue]--;
                notifyAll();
            }
        }
    }

    @Override
    public synchronized int stopQueue(int queue) {
        started[queue] = null;
        awaitOutside(queue);
        return 0;
    }

    @Override
    public synchronized void reset() {
        Arrays.fill(started, null);
        for (int queue = 0; queue < inside.length; queue++) {
            awaitOutside(queue);
        }
        accepted = null;
        resets++;
    }

    private void awaitOutside(int queue) {
        boolean interrupted = false;
        while (inside[queue] > 0) {
            try {
                wait();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
