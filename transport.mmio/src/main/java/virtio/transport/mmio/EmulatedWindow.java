package virtio.transport.mmio;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.EmulatedMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The device end: the registers of a device in software, in the same process as its driver.
 *
 * <p>A ready queue has a thread of its own, which runs the backend and, as the interrupt line has
 * no other processor to go to, the driver's interrupt handler. Calls of the device are serialised
 * by this object's lock; registers that say how things stand are read without it, so that a reset
 * that takes its time can be watched.
 */
final class EmulatedWindow implements RegisterWindow, Export {
    /** "VRTJ", in the manner of the vendor ids that others show here. */
    private static final int VENDOR = 0x4a545256;

    /** What the window itself offers. */
    private static final Features OWN =
            Features.of(Feature.ACCESS_PLATFORM, Feature.NOTIFICATION_DATA, Feature.RING_RESET);

    /** What exists on PCI only (virtio 6). */
    private static final Features OTHERS =
            Features.of(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ);

    private static final Logger LOG = System.getLogger(EmulatedWindow.class.getName());
    private static final int STATUS_MASK = 0xff;
    private static final int INTERRUPT_SHIFT = 8;

    private final String name;
    private final ExportedDevice device;
    private final Runnable onClose;
    private final Features offered;
    private final WindowQueue[] queues;

    /** Device status, and InterruptStatus from bit 8: one word, so that a reset clears both. */
    private final AtomicInteger state = new AtomicInteger();

    private final InterruptLine line = new InterruptLine();
    private final int[] driverFeatures = new int[MmioRegisters.FEATURE_WORDS];
    private volatile int deviceFeaturesSel;
    private volatile int driverFeaturesSel;
    private volatile int queueSel;
    private volatile Features accepted = Features.NONE;
    private volatile boolean notificationData;
    private volatile VirtioException gone;
    private EmulatedMemory memory;

    /**
     * A window in which nobody is yet.
     *
     * @param onClose run once when the window is withdrawn
     */
    EmulatedWindow(String name, ExportedDevice device, Runnable onClose) {
        this.name = name;
        this.device = device;
        this.onClose = onClose;
        Features all = device.offered().andNot(OTHERS).or(OWN);
        offered = Features.ofWords(all.word(0), all.word(1));
        queues = new WindowQueue[device.queueCount()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = new WindowQueue(this, i);
        }
    }

    /** As {@code virtio-blk, 1 queue}. */
    String description() {
        return "emulated virtio-%s, %d queue%s"
                .formatted(
                        DeviceType.name(device.deviceType()),
                        queues.length,
                        queues.length == 1 ? "" : "s");
    }

    /**
     * Takes the window for a driver.
     *
     * @param region what the device sees of the driver's memory, held until {@link #detach}
     */
    synchronized void attach(Driver taker, EmulatedMemory region) throws VirtioException {
        if (gone != null) {
            throw gone;
        }
        if (line.driver() != null) {
            throw new VirtioException(
                    "mmio:%s is %s: detach it there first".formatted(name, driver()));
        }
        region.hold();
        memory = region;
        line.driver(taker);
    }

    @Override
    public void detach(Driver leaver) {
        if (isOwnThread()) {
            // A queue's thread, in the driver's interrupt handler, cannot wait for itself.
            Thread.ofPlatform()
                    .daemon()
                    .name("virtio-mmio " + name + " detach")
                    .start(() -> letGo(leaver));
        } else {
            letGo(leaver);
        }
    }

    /** The device forgets the driver, as if the driver's machine had been switched off. */
    private synchronized void letGo(Driver leaver) {
        if (line.driver() == leaver && gone == null && quiesce()) {
            forgetDriver();
        }
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
            LOG.log(Level.ERROR, "mmio:{0} is not reset: {1}", name, e.getMessage());
            return false;
        }
    }

    /** Afterwards no interrupt handler runs; the queues are stopped before. */
    private void forgetDriver() {
        line.driver(null);
        if (memory != null) {
            memory.release();
            memory = null;
        }
    }

    @Override
    public int read(int offset) {
        if (gone != null) {
            return -1;
        }
        return switch (offset) {
            case MmioRegisters.MAGIC_VALUE -> MmioRegisters.MAGIC;
            case MmioRegisters.VERSION -> MmioRegisters.VERSION_2;
            case MmioRegisters.DEVICE_ID -> device.deviceType();
            case MmioRegisters.VENDOR_ID -> VENDOR;
            case MmioRegisters.DEVICE_FEATURES -> featureWord(offered, deviceFeaturesSel);
            case MmioRegisters.QUEUE_SIZE_MAX -> selected() == null ? 0 : device.maxQueueSize();
            case MmioRegisters.QUEUE_READY -> selected() != null && selected().ready ? 1 : 0;
            case MmioRegisters.QUEUE_RESET -> selected() != null && selected().resetting ? 1 : 0;
            case MmioRegisters.INTERRUPT_STATUS -> state.get() >>> INTERRUPT_SHIFT;
            case MmioRegisters.STATUS -> state.get() & STATUS_MASK;
            case MmioRegisters.SHM_LEN_LOW,
                    MmioRegisters.SHM_LEN_HIGH,
                    MmioRegisters.SHM_BASE_LOW,
                    MmioRegisters.SHM_BASE_HIGH ->
                    -1;
            case MmioRegisters.CONFIG_GENERATION -> generation();
            default -> 0;
        };
    }

    private static int featureWord(Features features, int sel) {
        if (sel < 0 || sel >= MmioRegisters.FEATURE_WORDS) {
            return 0;
        }
        return (int) (features.word(sel >> 1) >>> 32 * (sel & 1));
    }

    /** The queue that QueueSel means, null when there is none. */
    private WindowQueue selected() {
        int sel = queueSel;
        return sel >= 0 && sel < queues.length ? queues[sel] : null;
    }

    private synchronized int generation() {
        return device.configGeneration();
    }

    @Override
    public void write(int offset, int value) {
        if (offset == MmioRegisters.QUEUE_NOTIFY) {
            // NOTIFICATION_DATA: queue number in the lower half, ring position in the upper.
            int queue = notificationData ? value & 0xffff : value;
            if (queue >= 0 && queue < queues.length) {
                queues[queue].wake();
            }
        } else if (offset == MmioRegisters.INTERRUPT_ACK) {
            int bits = value & (MmioRegisters.INTERRUPT_USED | MmioRegisters.INTERRUPT_CONFIG);
            state.getAndAccumulate(~(bits << INTERRUPT_SHIFT), (seen, kept) -> seen & kept);
        } else {
            control(offset, value);
        }
    }

    private synchronized void control(int offset, int value) {
        if (gone != null) {
            return;
        }
        switch (offset) {
            case MmioRegisters.DEVICE_FEATURES_SEL -> deviceFeaturesSel = value;
            case MmioRegisters.DRIVER_FEATURES_SEL -> driverFeaturesSel = value;
            case MmioRegisters.DRIVER_FEATURES -> {
                // Once FEATURES_OK is set they are settled (virtio 3.1.1).
                if (!has(DeviceStatus.FEATURES_OK)
                        && driverFeaturesSel >= 0
                        && driverFeaturesSel < driverFeatures.length) {
                    driverFeatures[driverFeaturesSel] = value;
                }
            }
            case MmioRegisters.QUEUE_SEL -> queueSel = value;
            case MmioRegisters.STATUS -> status(value);
            default -> {
                if (selected() != null) {
                    queueRegister(selected(), offset, value);
                }
            }
        }
    }

    private void queueRegister(WindowQueue queue, int offset, int value) {
        if (offset == MmioRegisters.QUEUE_RESET) {
            if (value == 1 && queue.ready && accepted.has(Feature.RING_RESET)) {
                queue.resetting = true;
                stop(queue);
                queue.clear();
                queue.resetting = false;
            }
        } else if (offset == MmioRegisters.QUEUE_READY) {
            if (value == 1 && !queue.ready) {
                start(queue);
            } else if (value == 0 && queue.ready) {
                stop(queue);
                queue.ready = false;
            }
        } else if (!queue.ready) {
            // The fields of a live queue are not the driver's to write (4.2.2.2).
            queue.write(offset, value);
        }
    }

    private void start(WindowQueue queue) {
        int index = queue.index;
        String refusal = null;
        if (!has(DeviceStatus.FEATURES_OK)) {
            refusal = "FEATURES_OK is not set";
        } else if (queue.size() <= 0 || queue.size() > device.maxQueueSize()) {
            refusal = "size %d, limits are 1 and %d".formatted(queue.size(), device.maxQueueSize());
        } else {
            try {
                device.startQueue(index, queue.layout(), memory, this);
            } catch (VirtioException e) {
                refusal = e.getMessage();
            }
        }
        if (refusal != null) {
            // All that a driver can see of it is QueueReady reading 0.
            LOG.log(Level.WARNING, "mmio:{0} queue {1} does not start: {2}", name, index, refusal);
            return;
        }
        queue.ready = true;
        queue.start("virtio-mmio " + name + " queue " + index);
        if (isDriverOk()) {
            queue.wake();
        }
    }

    /** Afterwards no thread is in the queue; the caller holds the lock. */
    private void stop(WindowQueue queue) {
        refuseOwnThread();
        queue.halt();
        device.stopQueue(queue.index);
        queue.join();
    }

    private void status(int value) {
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
            for (WindowQueue queue : queues) {
                // Buffers may be waiting whose notification came too early to be heeded.
                if (queue.ready) {
                    queue.wake();
                }
            }
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
        notificationData = chosen.has(Feature.NOTIFICATION_DATA);
        return true;
    }

    private void reset() {
        for (WindowQueue queue : queues) {
            queue.halt();
        }
        device.reset();
        for (WindowQueue queue : queues) {
            queue.join();
            queue.clear();
        }
        Arrays.fill(driverFeatures, 0);
        accepted = Features.NONE;
        notificationData = false;
        // Last: a status of 0 says that all of it is done.
        state.set(0);
    }

    private boolean has(int status) {
        return (state.get() & status) != 0;
    }

    boolean isDriverOk() {
        return has(DeviceStatus.DRIVER_OK);
    }

    /** On the queue's thread. */
    void serve(int queue) {
        try {
            device.queueNotified(queue);
        } catch (RuntimeException | Error e) {
            LOG.log(Level.ERROR, "mmio:" + name + " queue " + queue, e);
            queueBroken(queue, "its device failed: " + e);
        }
    }

    @Override
    public int configBytes() {
        return device.configSize();
    }

    @Override
    public synchronized int readConfig(int offset, int width) {
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

    @Override
    public synchronized void writeConfig(int offset, int width, int value) {
        if (gone == null) {
            byte[] bytes = new byte[width];
            for (int i = 0; i < width; i++) {
                bytes[i] = (byte) (value >>> 8 * i);
            }
            device.writeConfig(offset, bytes);
        }
    }

    @Override
    public VirtioException gone() {
        return gone;
    }

    @Override
    public String driver() {
        return line.driver() == null ? null : "driven in this container";
    }

    @Override
    public void interrupt(int queue) {
        raise(MmioRegisters.INTERRUPT_USED);
    }

    @Override
    public void configChanged() {
        raise(MmioRegisters.INTERRUPT_CONFIG);
    }

    @Override
    public void schedule(int queue) {
        queues[queue].wake();
    }

    @Override
    public void queueBroken(int queue, String reason) {
        LOG.log(Level.WARNING, "mmio:{0} queue {1} is broken: {2}", name, queue, reason);
        int seen;
        do {
            seen = state.get();
            if ((seen & STATUS_MASK) == 0) {
                return;
            }
        } while (!state.compareAndSet(seen, seen | DeviceStatus.DEVICE_NEEDS_RESET));
        raise(MmioRegisters.INTERRUPT_CONFIG);
    }

    /** Nothing is notified of before DRIVER_OK, nor after a reset (virtio 2.1.2, 2.4.2). */
    private void raise(int bit) {
        int seen;
        do {
            seen = state.get();
            if ((seen & DeviceStatus.DRIVER_OK) == 0 || (seen & bit << INTERRUPT_SHIFT) != 0) {
                // What stands in InterruptStatus already is still to be seen by the handler.
                return;
            }
        } while (!state.compareAndSet(seen, seen | bit << INTERRUPT_SHIFT));
        line.raise();
    }

    /** Whether this is a thread that a reset would wait for. */
    private boolean isOwnThread() {
        if (line.isHandling()) {
            return true;
        }
        Thread current = Thread.currentThread();
        for (WindowQueue queue : queues) {
            if (queue.isOwn(current)) {
                return true;
            }
        }
        return false;
    }

    private void refuseOwnThread() {
        if (isOwnThread()) {
            throw new IllegalStateException(
                    "mmio:%s cannot be reset from its own interrupt handler".formatted(name)
                            + ": leave it to another thread");
        }
    }

    @Override
    public void close() {
        if (isOwnThread()) {
            Thread.ofPlatform()
                    .daemon()
                    .name("virtio-mmio " + name + " close")
                    .start(this::withdraw);
        } else {
            withdraw();
        }
    }

    private void withdraw() {
        Driver driven;
        synchronized (this) {
            if (gone != null) {
                return;
            }
            driven = line.driver();
            if (quiesce()) {
                forgetDriver();
            }
            gone = new VirtioException("mmio:%s was withdrawn by its exporter".formatted(name));
        }
        onClose.run();
        if (driven != null) {
            driven.gone();
        }
    }
}
