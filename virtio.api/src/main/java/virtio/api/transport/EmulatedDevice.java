package virtio.api.transport;

import org.osgi.annotation.versioning.ConsumerType;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The device end of an emulated device, in the same process as its driver: status, features and
 * queues (virtio 2.1, 2.2, 2.6). Which registers show them and how it interrupts is for its
 * transport to add.
 *
 * <p>A ready queue has a thread of its own, which runs the backend and, as an interrupt has no
 * other processor to go to, the driver's interrupt handler. Calls of the device are serialised by
 * this object's lock; what says how things stand is read without it, so that a reset that takes its
 * time can be watched. {@link #schedule} and the interrupt status allocate nothing.
 *
 * <p>A withdrawn device ignores what is written; {@link #gone} says so.
 */
@ConsumerType
public abstract class EmulatedDevice implements Export {
    /** What the transport itself offers. */
    private static final Features OWN =
            Features.of(Feature.ACCESS_PLATFORM, Feature.NOTIFICATION_DATA, Feature.RING_RESET);

    /** What is not emulated, and for the most part exists on PCI only (virtio 6). */
    private static final Features NOT_HERE =
            Features.of(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ);

    /** 32-bit words of features. */
    private static final int FEATURE_WORDS = 4;

    private static final int STATUS_MASK = 0xff;
    private static final int INTERRUPT_SHIFT = 8;

    /** The transport's. */
    private final Logger log = System.getLogger(getClass().getPackageName());

    private final String where;
    private final ExportedDevice device;
    private final Runnable onClose;
    private final Features offered;
    private final EmulatedQueue[] queues;
    private final InterruptLine[] lines;
    private final int[] driverFeatures = new int[FEATURE_WORDS];

    /**
     * Device status, and the interrupt status from bit 8: one word, so that a reset clears both.
     */
    private final AtomicInteger state = new AtomicInteger();

    private volatile boolean busMaster;
    private volatile Features accepted = Features.NONE;
    private volatile VirtioException gone;
    private volatile Object driver;

    // Guarded by this.
    private Runnable onGone;
    private EmulatedMemory memory;

    /**
     * A device that nobody drives yet.
     *
     * @param where whole address, for messages
     * @param lines how many interrupt lines it has
     * @param resetSize what the queues' size register shows after a reset
     * @param busMaster whether it may access memory
     * @param onClose run once when the device is withdrawn
     */
    @SuppressWarnings("this-escape") // The queues keep it, for when a driver has taken it.
    protected EmulatedDevice(
            String where,
            ExportedDevice device,
            int lines,
            int resetSize,
            boolean busMaster,
            Runnable onClose) {
        this.where = where;
        this.device = device;
        this.busMaster = busMaster;
        this.onClose = onClose;
        Features all = device.offered().andNot(NOT_HERE).or(OWN);
        offered = Features.ofWords(all.word(0), all.word(1));
        queues = new EmulatedQueue[device.queueCount()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = new EmulatedQueue(this, device, i, resetSize);
        }
        this.lines = new InterruptLine[lines];
        Arrays.setAll(this.lines, _ -> new InterruptLine());
    }

    /** As {@code emulated virtio-blk, 1 queue}. */
    public final String description() {
        return "emulated virtio-%s, %d queue%s"
                .formatted(
                        DeviceType.name(device.deviceType()),
                        queues.length,
                        queues.length == 1 ? "" : "s");
    }

    @Override
    public final String driver() {
        return driver == null ? null : "driven in this container";
    }

    /** Why the device does not answer any more, one sentence; null while it does. */
    public final VirtioException gone() {
        return gone;
    }

    /**
     * Takes the device for a driver.
     *
     * @param visible what the device sees of the driver's memory, held until {@link #letGo}
     * @param onGone run once if the device is withdrawn before
     * @throws VirtioException when it is withdrawn, or another driver has it
     */
    protected final synchronized void take(Object taker, EmulatedMemory visible, Runnable onGone)
            throws VirtioException {
        if (gone != null) {
            throw gone;
        }
        if (driver != null) {
            throw new VirtioException("%s is %s: detach it there first".formatted(where, driver()));
        }
        visible.hold();
        memory = visible;
        this.onGone = onGone;
        driver = taker;
    }

    /**
     * The device forgets the driver, as if the driver's machine had been switched off; idempotent.
     * In the driver's interrupt handler that happens soon.
     */
    protected final void letGo(Object leaver) {
        elsewhere("detach", () -> forget(leaver));
    }

    private synchronized void forget(Object leaver) {
        if (driver == leaver && gone == null && quiesce()) {
            forgetDriver();
        }
    }

    /** The driver has left: registers that a reset of the device leaves alone start anew. */
    protected void driverLeft() {}

    /** Afterwards no interrupt handler runs; the queues are stopped before. */
    private void forgetDriver() {
        for (InterruptLine line : lines) {
            line.handler(null);
        }
        driverLeft();
        driver = null;
        onGone = null;
        if (memory != null) {
            memory.release();
            memory = null;
        }
    }

    @Override
    public final void close() {
        elsewhere("close", this::withdraw);
    }

    private void withdraw() {
        Runnable told;
        synchronized (this) {
            if (gone != null) {
                return;
            }
            told = onGone;
            if (quiesce()) {
                forgetDriver();
            }
            gone = new VirtioException(where + " was withdrawn by its exporter");
        }
        onClose.run();
        if (told != null) {
            told.run();
        }
    }

    /** A queue's thread, in the driver's interrupt handler, cannot wait for itself. */
    private void elsewhere(String what, Runnable ends) {
        if (isOwnThread()) {
            Thread.ofPlatform().daemon().name(threadName(what)).start(ends);
        } else {
            ends.run();
        }
    }

    /** Whether this is a thread that a reset would wait for. */
    private boolean isOwnThread() {
        for (InterruptLine line : lines) {
            if (line.isHandling()) {
                return true;
            }
        }
        Thread current = Thread.currentThread();
        for (EmulatedQueue queue : queues) {
            if (queue.isOwn(current)) {
                return true;
            }
        }
        return false;
    }

    final void refuseOwnThread() {
        if (isOwnThread()) {
            throw new IllegalStateException(
                    where
                            + " cannot be reset from its own interrupt handler: leave it to another"
                            + " thread");
        }
    }

    /** 32 feature bits that the device offers, from 32 times {@code select}; 0 beyond 127. */
    public final int deviceFeature(int select) {
        return isWord(select) ? (int) (offered.word(select >> 1) >>> 32 * (select & 1)) : 0;
    }

    /** 32 feature bits as the driver wrote them. */
    public final int driverFeature(int select) {
        return isWord(select) ? driverFeatures[select] : 0;
    }

    /** Writes 32 feature bits; once FEATURES_OK is set they are settled (virtio 3.1.1). */
    public final synchronized void driverFeature(int select, int bits) {
        if (isWord(select) && !has(DeviceStatus.FEATURES_OK)) {
            driverFeatures[select] = bits;
        }
    }

    private static boolean isWord(int select) {
        return select >= 0 && select < FEATURE_WORDS;
    }

    /** What the device has accepted with FEATURES_OK; none after a reset. */
    public final Features accepted() {
        return accepted;
    }

    /** The device status field. */
    public final int status() {
        return state.get() & STATUS_MASK;
    }

    /**
     * Writes the device status field; 0 resets.
     *
     * @throws IllegalStateException for a reset by the driver's interrupt handler
     */
    public final synchronized void status(int value) {
        if (gone != null) {
            return;
        }
        if (value == 0) {
            refuseOwnThread();
            quiesce();
            return;
        }
        // Bits only come, until a reset; NEEDS_RESET is the device's to set.
        int add = value & STATUS_MASK & ~DeviceStatus.DEVICE_NEEDS_RESET;
        if ((add & DeviceStatus.FEATURES_OK) != 0 && !has(DeviceStatus.FEATURES_OK) && !accept()) {
            add &= ~DeviceStatus.FEATURES_OK;
        }
        if (((add | state.get()) & DeviceStatus.FEATURES_OK) == 0) {
            add &= ~DeviceStatus.DRIVER_OK;
        }
        int set = add;
        int before = state.getAndUpdate(seen -> seen | set);
        if ((set & ~before & DeviceStatus.DRIVER_OK) != 0) {
            wakeAll();
        }
    }

    private boolean accept() {
        Features chosen =
                Features.ofWords(
                        Integer.toUnsignedLong(driverFeatures[0]) | (long) driverFeatures[1] << 32,
                        Integer.toUnsignedLong(driverFeatures[2]) | (long) driverFeatures[3] << 32);
        // The device is asked about what it offered itself.
        if (!chosen.andNot(offered).isEmpty() || !device.accept(chosen.and(device.offered()))) {
            return false;
        }
        accepted = chosen;
        return true;
    }

    /**
     * Resets; false when a thread does not leave the device: the status then does not read as 0,
     * and the driver's memory stays mapped for good.
     */
    private boolean quiesce() {
        try {
            reset();
            return true;
        } catch (IllegalStateException e) {
            log.log(Level.ERROR, "{0} is not reset: {1}", where, e.getMessage());
            return false;
        }
    }

    private void reset() {
        for (EmulatedQueue queue : queues) {
            queue.halt();
        }
        device.reset();
        for (EmulatedQueue queue : queues) {
            queue.join();
            queue.clear();
        }
        Arrays.fill(driverFeatures, 0);
        accepted = Features.NONE;
        // Last: a status of 0 says that all of it is done.
        state.set(0);
    }

    final boolean has(int status) {
        return (state.get() & status) != 0;
    }

    /** What the device sees of the driver's memory; null without a driver. */
    final EmulatedMemory memory() {
        return memory;
    }

    /** A queue does not start: a driver can see no more of it than that it is not ready. */
    final void refused(int queue, String refusal) {
        log.log(Level.WARNING, "{0} queue {1} does not start: {2}", where, queue, refusal);
    }

    final String threadName(String of) {
        return "virtio-" + where + " " + of;
    }

    /** Whether the driver has set DRIVER_OK: before, and after a reset, nothing is notified of. */
    protected final boolean isDriverOk() {
        return has(DeviceStatus.DRIVER_OK);
    }

    /** Whether the device may access memory, and is served. */
    protected final boolean isBusMaster() {
        return busMaster;
    }

    /** Says whether the device may access memory. */
    protected final void busMaster(boolean on) {
        boolean before = busMaster;
        busMaster = on;
        if (on && !before) {
            wakeAll();
        }
    }

    /** Whether queues are served. */
    final boolean runs() {
        return busMaster && isDriverOk();
    }

    /** Buffers may be waiting whose notification came too early to be heeded. */
    private void wakeAll() {
        for (EmulatedQueue queue : queues) {
            if (queue.isReady()) {
                queue.wake();
            }
        }
    }

    /** How many queues there are. */
    public final int queueCount() {
        return queues.length;
    }

    /** The queue of that number, null when there is none. */
    public final EmulatedQueue queue(int index) {
        return index >= 0 && index < queues.length ? queues[index] : null;
    }

    /** On the queue's thread. */
    final void serve(int queue) {
        try {
            device.queueNotified(queue);
        } catch (RuntimeException | Error e) {
            log.log(Level.ERROR, where + " queue " + queue, e);
            queueBroken(queue, "its device failed: " + e);
        }
    }

    /**
     * Has the device serve a queue soon, on its own thread; without one of that number, nothing.
     */
    @Override
    public final void schedule(int queue) {
        if (queue >= 0 && queue < queues.length) {
            queues[queue].wake();
        }
    }

    @Override
    public final void queueBroken(int queue, String reason) {
        log.log(Level.WARNING, "{0} queue {1} is broken: {2}", where, queue, reason);
        int seen;
        do {
            seen = state.get();
            if ((seen & STATUS_MASK) == 0) {
                return; // Reset meanwhile.
            }
        } while (!state.compareAndSet(seen, seen | DeviceStatus.DEVICE_NEEDS_RESET));
        configChanged();
    }

    /** The interrupt line of that number, from 0. */
    protected final InterruptLine line(int index) {
        return lines[index];
    }

    /** The interrupt status. */
    public final int interruptStatus() {
        return state.get() >>> INTERRUPT_SHIFT;
    }

    /** Clears bits of the interrupt status and returns what it was. */
    public final int clearInterruptStatus(int bits) {
        int cleared = (bits & STATUS_MASK) << INTERRUPT_SHIFT;
        return state.getAndAccumulate(~cleared, (seen, kept) -> seen & kept) >>> INTERRUPT_SHIFT;
    }

    /**
     * Sets a bit of the interrupt status; false when it stood already and is still to be seen by
     * the handler, and before DRIVER_OK and after a reset (virtio 2.1.2, 2.4.2).
     */
    protected final boolean setInterruptStatus(int bit) {
        int seen;
        do {
            seen = state.get();
            if ((seen & DeviceStatus.DRIVER_OK) == 0 || (seen & bit << INTERRUPT_SHIFT) != 0) {
                return false;
            }
        } while (!state.compareAndSet(seen, seen | bit << INTERRUPT_SHIFT));
        return true;
    }

    /** Changes whenever the configuration does. */
    public final synchronized int configGeneration() {
        return device.configGeneration();
    }

    /** Reads 1, 2 or 4 bytes of the device's configuration in one access, unsigned. */
    public final synchronized int deviceConfig(int offset, int width) {
        if (gone != null) {
            return -1;
        }
        byte[] bytes = new byte[width];
        device.readConfig(offset, bytes);
        int value = 0;
        for (int i = 0; i < width; i++) {
            value |= (bytes[i] & 0xff) << 8 * i;
        }
        return value;
    }

    /** Writes 1, 2 or 4 bytes of the device's configuration in one access. */
    public final synchronized void deviceConfig(int offset, int width, int value) {
        if (gone == null) {
            byte[] bytes = new byte[width];
            for (int i = 0; i < width; i++) {
                bytes[i] = (byte) (value >>> 8 * i);
            }
            device.writeConfig(offset, bytes);
        }
    }
}
