package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.util.ArrayList;
import java.util.List;

/** A driver's end and a device's end on the same ring, with what passes between them counted. */
final class Rig implements AutoCloseable, Transport, Export {
    final Mapped mapped;
    final Features features;
    DriverEnd driver;
    volatile DeviceEnd device;

    final List<String> driverBroken = new ArrayList<>();
    final List<String> deviceBroken = new ArrayList<>();
    volatile int notified;
    volatile int notifyData;
    volatile int interrupts;
    volatile int scheduled;
    int callbacks;
    int maxQueueSize = 32768;
    boolean canStop = true;

    /** Runs in place of counting. */
    Runnable onNotify = () -> notified++;

    Runnable onInterrupt = () -> interrupts++;
    Runnable onSchedule = () -> scheduled++;

    /** Runs before the device's end is started. */
    Runnable onStart = () -> {};

    QueueRequest.Callback callback = queue -> callbacks++;

    Rig(Mapped mapped, Features features) {
        this.mapped = mapped;
        this.features = features;
    }

    /** Both ends on a fresh ring. */
    Rig start(int size) throws VirtioException {
        QueueRequest request =
                new QueueRequest(
                        "test", size, callback == null ? null : queue -> callback.used(queue));
        driver =
                DriverEnd.create(
                        0,
                        request,
                        size,
                        features,
                        mapped.mapping(),
                        this,
                        (queue, reason) -> driverBroken.add(reason));
        startQueue(0, driver.layout());
        return this;
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        onStart.run();
        device = DeviceEnd.start(queue, layout, features, mapped.memory(), this);
    }

    @Override
    public boolean stopQueue(int queue) {
        if (!canStop) {
            return false;
        }
        device.stop();
        return true;
    }

    @Override
    public void notifyQueue(int queue, int data) {
        notifyData = data;
        onNotify.run();
    }

    @Override
    public void interrupt(int queue) {
        onInterrupt.run();
    }

    @Override
    public void schedule(int queue) {
        onSchedule.run();
    }

    @Override
    public void queueBroken(int queue, String reason) {
        deviceBroken.add(reason);
    }

    @Override
    public int maxQueueSize(int queue) {
        return maxQueueSize;
    }

    @Override
    public void close() {
        if (device != null) {
            device.stop();
        }
        if (driver != null) {
            driver.close();
        }
        mapped.close();
    }

    @Override
    public String driver() {
        return "test";
    }

    @Override
    public int deviceType() {
        return 0;
    }

    @Override
    public Features offered() {
        return features;
    }

    @Override
    public void accept(Features features) {}

    @Override
    public int status() {
        return 0;
    }

    @Override
    public void status(int value) {}

    @Override
    public int configGeneration() {
        return 0;
    }

    @Override
    public void readConfig(int offset, byte[] into) {}

    @Override
    public void writeConfig(int offset, byte[] from) {}

    @Override
    public MapToken mapToken(int queue) {
        return mapped.mapping().token();
    }

    @Override
    public void listen(Listener listener) {}

    @Override
    public void configChanged() {}
}
