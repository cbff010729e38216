package virtio.ring;

import virtio.api.VirtioException;

import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

/**
 * Has a frozen driver abandoned when its consumers have waited long enough; on a thread of its own,
 * in time also while a transport takes long to answer the device's lifecycle.
 */
final class Patience {
    /** When to look again at a driver that was busy. */
    private static final long BUSY_MILLIS = 10;

    private final Lifecycle watch;

    /**
     * @param address of the device, for the name of the thread
     */
    Patience(String address) {
        watch = new Lifecycle("watch-" + address);
    }

    /**
     * Waits for a device to come back.
     *
     * @param dueNanos by {@link System#nanoTime}
     * @param lost whether it is still the same loss
     * @param why what the driver is told
     */
    void expect(BoundDriver driver, long dueNanos, BooleanSupplier lost, Supplier<String> why) {
        long millis = TimeUnit.NANOSECONDS.toMillis(dueNanos - System.nanoTime());
        watch.postLater(() -> end(driver, lost, why), Math.max(0, millis));
    }

    private void end(BoundDriver driver, BooleanSupplier lost, Supplier<String> why) {
        if (lost.getAsBoolean() && !driver.abandon(new VirtioException(why.get()))) {
            watch.postLater(() -> end(driver, lost, why), BUSY_MILLIS);
        }
    }

    void close() {
        watch.close();
    }
}
