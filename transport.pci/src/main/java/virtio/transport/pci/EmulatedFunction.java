package virtio.transport.pci;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.VirtioException;
import virtio.api.transport.EmulatedMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;

/**
 * The device end: a function in software, in the same process as its driver.
 *
 * <p>A ready queue has a thread of its own, which runs the backend and, as an interrupt has no
 * other processor to go to, the driver's interrupt handler. Calls of the device are serialised by
 * this object's lock; registers that say how things stand are read without it, so that a reset that
 * takes its time can be watched.
 */
final class EmulatedFunction implements PciFunction, Export {
    private static final Logger LOG = System.getLogger(EmulatedFunction.class.getName());

    private final String where;
    private final ExportedDevice device;
    private final Runnable onClose;
    private final CommonConfig common;
    private final InterruptLine[] lines;
    private final InterruptLine pin = new InterruptLine(PIN);
    private final MsixTable msix;
    private final EmulatedConfig config;

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
        common = new CommonConfig(where, this, device, vectors);
        lines = new InterruptLine[vectors];
        for (int vector = 0; vector < vectors; vector++) {
            lines[vector] = new InterruptLine(vector);
        }
        msix = new MsixTable(vectors, this::message);
        config =
                new EmulatedConfig(
                        this, msix, device.deviceType(), device.configSize(), common.queueCount());
    }

    /** As {@code emulated virtio-blk, 1 queue}. */
    String description() {
        return "emulated virtio-%s, %d queue%s"
                .formatted(
                        DeviceType.name(device.deviceType()),
                        common.queueCount(),
                        common.queueCount() == 1 ? "" : "s");
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
        if (driver == leaver && gone == null && common.quiesce()) {
            forgetDriver();
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
            common.wakeAll();
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
            return common.takeIsr();
        }
        if (at >= EmulatedConfig.DEVICE && at < EmulatedConfig.NOTIFY) {
            return readDevice(at - EmulatedConfig.DEVICE, width);
        }
        return at < PciRegisters.COMMON_RESET_BYTES ? common.read(at) & ones : 0;
    }

    synchronized int generation() {
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
            if (queue < common.queueCount()) {
                common.wake(queue);
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
        common.write(at, value);
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

    /** Whether queues are served. */
    boolean runs() {
        return busMaster && common.has(DeviceStatus.DRIVER_OK);
    }

    /** What the device sees of the driver's memory; null without a driver. */
    EmulatedMemory memory() {
        return memory;
    }

    @Override
    public boolean translated() {
        return false;
    }

    @Override
    public synchronized int enableMsix(int vectors) {
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
        return vectors;
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
        return !msix.enabled() && common.isr() != 0;
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
        if (!common.has(DeviceStatus.DRIVER_OK)) {
            return;
        }
        if (msix.enabled()) {
            int vector = common.vectorOf(queue);
            if (vector != PciRegisters.NO_VECTOR) {
                msix.send(vector);
            }
        } else if (common.setIsr(PciRegisters.ISR_QUEUE) && !pinDisabled) {
            pin.raise();
        }
    }

    @Override
    public void configChanged() {
        if (!common.has(DeviceStatus.DRIVER_OK)) {
            return;
        }
        boolean first = common.setIsr(PciRegisters.ISR_CONFIG);
        if (msix.enabled()) {
            int vector = common.configVector();
            if (vector != PciRegisters.NO_VECTOR) {
                msix.send(vector);
            }
        } else if (first && !pinDisabled) {
            pin.raise();
        }
    }

    @Override
    public void schedule(int queue) {
        common.wake(queue);
    }

    @Override
    public void queueBroken(int queue, String reason) {
        LOG.log(Level.WARNING, "{0} queue {1} is broken: {2}", where, queue, reason);
        if (common.needReset()) {
            configChanged();
        }
    }

    /** Whether this is a thread that a reset would wait for. */
    private boolean isOwnThread() {
        boolean own = pin.isHandling();
        for (InterruptLine line : lines) {
            own |= line.isHandling();
        }
        return own || common.isOwn(Thread.currentThread());
    }

    void refuseOwnThread() {
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
            if (common.quiesce()) {
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
