package virtio.transport.pci;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The device end: a function in software, in the same process as its driver.
 *
 * <p>A ready queue has a thread of its own, which runs the backend and, as an interrupt has no
 * other processor to go to, the driver's interrupt handler. Calls of the device are serialised by
 * this object's lock; registers that say how things stand are read without it, so that a reset that
 * takes its time can be watched.
 */
final class EmulatedFunction implements PciFunction, Export {
    /** What the function itself offers. */
    private static final Features OWN =
            Features.of(Feature.ACCESS_PLATFORM, Feature.NOTIFICATION_DATA, Feature.RING_RESET);

    /** What is not emulated here. */
    private static final Features NOT_HERE =
            Features.of(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ);

    private static final Logger LOG = System.getLogger(EmulatedFunction.class.getName());
    private static final int STATUS_MASK = 0xff;
    private static final int ISR_SHIFT = 8;

    private final String where;
    private final ExportedDevice device;
    private final Runnable onClose;
    private final Features offered;
    private final FunctionQueue[] queues;
    private final InterruptLine[] lines;
    private final InterruptLine pin = new InterruptLine(PIN);
    private final MsixTable msix;
    private final EmulatedConfig config;

    /**
     * Device status, and the interrupt status from bit 8: one word, so that a reset clears both.
     */
    private final AtomicInteger state = new AtomicInteger();

    private final int[] driverFeatures = new int[PciRegisters.FEATURE_WORDS];
    private int deviceFeatureSelect;
    private int driverFeatureSelect;
    private volatile int queueSelect;
    private volatile int configVector = PciRegisters.NO_VECTOR;
    private volatile Features accepted = Features.NONE;
    private volatile boolean busMaster;
    private volatile boolean decodes;
    private volatile boolean pinDisabled;
    private volatile VirtioException gone;
    private volatile Driver driver;
    private EmulatedMemory memory;

    /**
     * A function that nobody drives yet.
     *
     * @param where whole address, for messages
     * @param vectors MSI-X vectors, 1 to 2048
     * @param onClose run once when the function is withdrawn
     */
    EmulatedFunction(String where, ExportedDevice device, int vectors, Runnable onClose) {
        this.where = where;
        this.device = device;
        this.onClose = onClose;
        Features all = device.offered().andNot(NOT_HERE).or(OWN);
        offered = Features.ofWords(all.word(0), all.word(1));
        queues = new FunctionQueue[device.queueCount()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = new FunctionQueue(this, i);
            queues[i].clear(device.maxQueueSize());
        }
        lines = new InterruptLine[vectors];
        for (int vector = 0; vector < vectors; vector++) {
            lines[vector] = new InterruptLine(vector);
        }
        msix = new MsixTable(vectors, this::message);
        config =
                new EmulatedConfig(
                        this, msix, device.deviceType(), device.configSize(), queues.length);
    }

    /** As {@code emulated virtio-blk, 1 queue}. */
    String description() {
        return "emulated virtio-%s, %d queue%s"
                .formatted(
                        DeviceType.name(device.deviceType()),
                        queues.length,
                        queues.length == 1 ? "" : "s");
    }

    /**
     * Takes the function for a driver.
     *
     * @param region what the device sees of the driver's memory, held until {@link #detach}
     */
    synchronized void attach(Driver taker, EmulatedMemory region) throws VirtioException {
        if (gone != null) {
            throw gone;
        }
        if (driver != null) {
            throw new VirtioException("%s is %s: detach it there first".formatted(where, driver()));
        }
        region.hold();
        memory = region;
        driver = taker;
    }

    @Override
    public void detach(Driver leaver) {
        if (isOwnThread()) {
            // A queue's thread, in the driver's interrupt handler, cannot wait for itself.
            Thread.ofPlatform()
                    .daemon()
                    .name("virtio-pci " + where + " detach")
                    .start(() -> letGo(leaver));
        } else {
            letGo(leaver);
        }
    }

    /** The device forgets the driver, as if the driver's machine had been switched off. */
    private synchronized void letGo(Driver leaver) {
        if (driver == leaver && gone == null && quiesce()) {
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
            LOG.log(Level.ERROR, "{0} is not reset: {1}", where, e.getMessage());
            return false;
        }
    }

    /** Afterwards no interrupt handler runs; the queues are stopped before. */
    private void forgetDriver() {
        disableInterrupts();
        config.reset();
        command();
        driver = null;
        if (memory != null) {
            memory.release();
            memory = null;
        }
    }

    @Override
    public synchronized int readConfig(int offset, int width) {
        return gone != null ? -1 >>> 32 - 8 * width : config.read(offset, width);
    }

    @Override
    public void writeConfig(int offset, int width, int value) {
        synchronized (this) {
            if (gone != null) {
                return;
            }
            config.write(offset, width, value);
            command();
        }
    }

    private void command() {
        boolean mastered = busMaster;
        decodes = config.has(PciRegisters.COMMAND_MEMORY);
        pinDisabled = config.has(PciRegisters.COMMAND_INTX_DISABLE);
        busMaster = config.has(PciRegisters.COMMAND_BUS_MASTER);
        if (busMaster && !mastered) {
            wakeAll();
        }
    }

    @Override
    public long barBytes(int bar) {
        return config.barBytes(bar);
    }

    @Override
    public int read(int bar, long offset, int width) {
        int ones = -1 >>> 32 - 8 * width;
        if (gone != null || !decodes) {
            return ones;
        }
        int at = (int) offset;
        if (bar == EmulatedConfig.MSIX_BAR) {
            return width == 4 && at < msix.bytes() ? msix.read(at) : 0;
        }
        if (at == EmulatedConfig.ISR) {
            int isr = state.getAndUpdate(seen -> seen & STATUS_MASK) >>> ISR_SHIFT;
            return isr & ones;
        }
        if (at >= EmulatedConfig.DEVICE && at < EmulatedConfig.NOTIFY) {
            return readDevice(at - EmulatedConfig.DEVICE, width);
        }
        return at < PciRegisters.COMMON_RESET_BYTES ? readCommon(at) & ones : 0;
    }

    private int readCommon(int offset) {
        return switch (offset) {
            case PciRegisters.DEVICE_FEATURE_SELECT -> deviceFeatureSelect;
            case PciRegisters.DEVICE_FEATURE -> word(offered, deviceFeatureSelect);
            case PciRegisters.DRIVER_FEATURE_SELECT -> driverFeatureSelect;
            case PciRegisters.DRIVER_FEATURE -> driverFeature();
            case PciRegisters.CONFIG_MSIX_VECTOR -> configVector;
            case PciRegisters.NUM_QUEUES -> queues.length;
            case PciRegisters.DEVICE_STATUS -> state.get() & STATUS_MASK;
            case PciRegisters.CONFIG_GENERATION -> generation();
            case PciRegisters.QUEUE_SELECT -> queueSelect;
            default -> selected() == null ? 0 : selected().read(offset);
        };
    }

    private static int word(Features features, int select) {
        boolean there = select >= 0 && select < PciRegisters.FEATURE_WORDS;
        return there ? (int) (features.word(select >> 1) >>> 32 * (select & 1)) : 0;
    }

    private int driverFeature() {
        int select = driverFeatureSelect;
        return select >= 0 && select < driverFeatures.length ? driverFeatures[select] : 0;
    }

    /** The queue that queue_select means, null when there is none. */
    private FunctionQueue selected() {
        int select = queueSelect;
        return select < queues.length ? queues[select] : null;
    }

    private synchronized int generation() {
        return device.configGeneration();
    }

    private synchronized int readDevice(int offset, int width) {
        byte[] bytes = new byte[width];
        device.readConfig(offset, bytes);
        int value = 0;
        for (int i = 0; i < width; i++) {
            value |= (bytes[i] & 0xff) << 8 * i;
        }
        return value;
    }

    @Override
    public void write(int bar, long offset, int width, int value) {
        if (gone != null || !decodes) {
            return;
        }
        int at = (int) offset;
        if (bar == EmulatedConfig.MSIX_BAR) {
            if (width == 4 && at < msix.bytes()) {
                msix.write(at, value);
            }
        } else if (at >= EmulatedConfig.NOTIFY) {
            // Where it is written says which queue; what is written says no more (4.1.5.2).
            int queue = (at - EmulatedConfig.NOTIFY) / EmulatedConfig.NOTIFY_MULTIPLIER;
            if (queue < queues.length) {
                queues[queue].wake();
            }
        } else {
            control(at, width, value);
        }
    }

    private synchronized void control(int at, int width, int value) {
        if (gone != null) {
            return;
        }
        if (at >= EmulatedConfig.DEVICE) {
            byte[] bytes = new byte[width];
            for (int i = 0; i < width; i++) {
                bytes[i] = (byte) (value >>> 8 * i);
            }
            device.writeConfig(at - EmulatedConfig.DEVICE, bytes);
            return;
        }
        switch (at) {
            case PciRegisters.DEVICE_FEATURE_SELECT -> deviceFeatureSelect = value;
            case PciRegisters.DRIVER_FEATURE_SELECT -> driverFeatureSelect = value;
            case PciRegisters.DRIVER_FEATURE -> {
                // Once FEATURES_OK is set they are settled (virtio 3.1.1).
                int select = driverFeatureSelect;
                if (!has(DeviceStatus.FEATURES_OK)
                        && select >= 0
                        && select < driverFeatures.length) {
                    driverFeatures[select] = value;
                }
            }
            case PciRegisters.CONFIG_MSIX_VECTOR -> configVector = vector(value);
            case PciRegisters.QUEUE_SELECT -> queueSelect = value & 0xffff;
            case PciRegisters.DEVICE_STATUS -> status(value);
            default -> {
                if (selected() != null) {
                    queueRegister(selected(), at, value);
                }
            }
        }
    }

    /** The vector if there is one of that number, else NO_VECTOR (4.1.5.1.2.1). */
    private int vector(int value) {
        int number = value & 0xffff;
        return number < msix.vectors() ? number : PciRegisters.NO_VECTOR;
    }

    private void queueRegister(FunctionQueue queue, int at, int value) {
        if (at == PciRegisters.QUEUE_MSIX_VECTOR) {
            queue.vector = vector(value);
        } else if (at == PciRegisters.QUEUE_RESET) {
            if ((value & 0xffff) == 1 && queue.ready && accepted.has(Feature.RING_RESET)) {
                queue.resetting = true;
                stop(queue);
                queue.clear(device.maxQueueSize());
                queue.resetting = false;
            }
        } else if (at == PciRegisters.QUEUE_ENABLE) {
            // A written 0 is no way to stop a queue (4.1.4.3.2).
            if ((value & 0xffff) == 1 && !queue.ready) {
                start(queue);
            }
        } else if (!queue.ready) {
            queue.write(at, at == PciRegisters.QUEUE_SIZE ? value & 0xffff : value);
        }
    }

    private void start(FunctionQueue queue) {
        int index = queue.index;
        String refusal = null;
        if (!has(DeviceStatus.FEATURES_OK)) {
            refusal = "FEATURES_OK is not set";
        } else if (queue.size() <= 0 || queue.size() > device.maxQueueSize()) {
            refusal = "size %d, limits are 1 and %d".formatted(queue.size(), device.maxQueueSize());
        } else if (memory == null) {
            refusal = "nobody has taken the function";
        } else {
            try {
                device.startQueue(index, queue.layout(), memory, this);
            } catch (VirtioException e) {
                refusal = e.getMessage();
            }
        }
        if (refusal != null) {
            // All that a driver can see of it is queue_enable reading 0.
            LOG.log(Level.WARNING, "{0} queue {1} does not start: {2}", where, index, refusal);
            return;
        }
        queue.ready = true;
        queue.start("virtio-pci " + where + " queue " + index);
        if (runs()) {
            queue.wake();
        }
    }

    /** Afterwards no thread is in the queue; the caller holds the lock. */
    private void stop(FunctionQueue queue) {
        refuseOwnThread();
        queue.halt();
        device.stopQueue(queue.index);
        queue.join();
    }

    private void status(int value) {
        if ((value & STATUS_MASK) == 0) {
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
            // Buffers may be waiting whose notification came too early to be heeded.
            wakeAll();
        }
    }

    private void wakeAll() {
        for (FunctionQueue queue : queues) {
            if (queue.ready) {
                queue.wake();
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
        return true;
    }

    private void reset() {
        for (FunctionQueue queue : queues) {
            queue.halt();
        }
        device.reset();
        for (FunctionQueue queue : queues) {
            queue.join();
            queue.clear(device.maxQueueSize());
        }
        Arrays.fill(driverFeatures, 0);
        accepted = Features.NONE;
        configVector = PciRegisters.NO_VECTOR;
        // Last: a status of 0 says that all of it is done.
        state.set(0);
    }

    private boolean has(int status) {
        return (state.get() & status) != 0;
    }

    /** Whether queues are served. */
    boolean runs() {
        return busMaster && has(DeviceStatus.DRIVER_OK);
    }

    /** On the queue's thread. */
    void serve(int queue) {
        try {
            device.queueNotified(queue);
        } catch (RuntimeException | Error e) {
            LOG.log(Level.ERROR, where + " queue " + queue, e);
            queueBroken(queue, "its device failed: " + e);
        }
    }

    @Override
    public synchronized boolean enableMsix(int vectors) {
        for (int vector = 0; vector < vectors; vector++) {
            lines[vector].driver(driver);
            int entry = vector * PciRegisters.MSIX_ENTRY_BYTES;
            // Address, data and mask, as a platform writes them; the address means nothing here.
            msix.write(entry, 0xfee0_0000);
            msix.write(entry + 4, 0);
            msix.write(entry + 8, vector);
            msix.write(entry + 12, 0);
        }
        msix.control(PciRegisters.MSIX_ENABLE);
        return true;
    }

    @Override
    public synchronized boolean enablePin() {
        pin.driver(driver);
        return true;
    }

    @Override
    public void disableInterrupts() {
        msix.control(0);
        pin.driver(null);
        for (InterruptLine line : lines) {
            line.driver(null);
        }
    }

    private void message(int data) {
        if (busMaster && data >= 0 && data < lines.length) {
            lines[data].raise();
        }
    }

    boolean pinAsserted() {
        return !msix.enabled() && state.get() >>> ISR_SHIFT != 0;
    }

    @Override
    public VirtioException gone() {
        return gone;
    }

    @Override
    public String driver() {
        return driver == null ? null : "driven in this container";
    }

    @Override
    public void interrupt(int queue) {
        // Nothing is notified of before DRIVER_OK, nor after a reset (virtio 2.1.2, 2.4.2).
        if (!has(DeviceStatus.DRIVER_OK)) {
            return;
        }
        if (msix.enabled()) {
            int vector = queues[queue].vector;
            if (vector != PciRegisters.NO_VECTOR) {
                msix.send(vector);
            }
        } else if (setIsr(PciRegisters.ISR_QUEUE) && !pinDisabled) {
            pin.raise();
        }
    }

    @Override
    public void configChanged() {
        if (!has(DeviceStatus.DRIVER_OK)) {
            return;
        }
        boolean first = setIsr(PciRegisters.ISR_CONFIG);
        if (msix.enabled()) {
            int vector = configVector;
            if (vector != PciRegisters.NO_VECTOR) {
                msix.send(vector);
            }
        } else if (first && !pinDisabled) {
            pin.raise();
        }
    }

    /** False when the bit stood already, or when a reset came in between. */
    private boolean setIsr(int bit) {
        int seen;
        do {
            seen = state.get();
            if ((seen & DeviceStatus.DRIVER_OK) == 0 || (seen & bit << ISR_SHIFT) != 0) {
                return false;
            }
        } while (!state.compareAndSet(seen, seen | bit << ISR_SHIFT));
        return true;
    }

    @Override
    public void schedule(int queue) {
        queues[queue].wake();
    }

    @Override
    public void queueBroken(int queue, String reason) {
        LOG.log(Level.WARNING, "{0} queue {1} is broken: {2}", where, queue, reason);
        int seen;
        do {
            seen = state.get();
            if ((seen & STATUS_MASK) == 0) {
                return;
            }
        } while (!state.compareAndSet(seen, seen | DeviceStatus.DEVICE_NEEDS_RESET));
        configChanged();
    }

    /** Whether this is a thread that a reset would wait for. */
    private boolean isOwnThread() {
        boolean own = pin.isHandling();
        for (InterruptLine line : lines) {
            own |= line.isHandling();
        }
        for (FunctionQueue queue : queues) {
            own |= queue.isOwn(Thread.currentThread());
        }
        return own;
    }

    private void refuseOwnThread() {
        if (isOwnThread()) {
            throw new IllegalStateException(
                    where
                            + " cannot be reset from its own interrupt handler: leave it to another"
                            + " thread");
        }
    }

    @Override
    public void close() {
        if (isOwnThread()) {
            Thread.ofPlatform()
                    .daemon()
                    .name("virtio-pci " + where + " close")
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
            driven = driver;
            if (quiesce()) {
                forgetDriver();
            }
            gone = new VirtioException(where + " was withdrawn by its exporter");
        }
        onClose.run();
        if (driven != null) {
            driven.gone();
        }
    }
}
