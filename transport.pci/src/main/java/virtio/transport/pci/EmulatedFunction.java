package virtio.transport.pci;

import virtio.api.VirtioException;
import virtio.api.transport.EmulatedDevice;
import virtio.api.transport.EmulatedMemory;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.InterruptLine;

/** The device end: a function in software, in the same process as its driver. */
final class EmulatedFunction extends EmulatedDevice implements PciFunction {
    private final int vectors;

    /** Behind the lines of the vectors. */
    private final InterruptLine pin;

    private final CommonConfig common;
    private final MsixTable msix;
    private final EmulatedConfig config;

    private volatile boolean decodes;
    private volatile boolean pinDisabled;
    private volatile Driver driver;

    /**
     * A function that nobody drives yet.
     *
     * @param where whole address, for messages
     * @param vectors MSI-X vectors, 1 to 2048
     * @param onClose run once when the function is withdrawn
     */
    EmulatedFunction(String where, ExportedDevice device, int vectors, Runnable onClose) {
        super(where, device, vectors + 1, device.maxQueueSize(), false, onClose);
        this.vectors = vectors;
        pin = line(vectors);
        common = new CommonConfig(this, vectors);
        msix = new MsixTable(vectors, this::message);
        config =
                new EmulatedConfig(
                        this, msix, device.deviceType(), device.configSize(), queueCount());
    }

    /**
     * Takes the function for a driver.
     *
     * @param visible what the device sees of the driver's memory, held until {@link #detach}
     */
    synchronized void attach(Driver taker, EmulatedMemory visible) throws VirtioException {
        take(taker, visible, taker::gone);
        driver = taker;
    }

    @Override
    public void detach(Driver leaver) {
        letGo(leaver);
    }

    @Override
    protected void driverLeft() {
        disableInterrupts();
        common.unmapVectors();
        config.reset();
        command();
    }

    @Override
    public synchronized int readConfig(int offset, int width) {
        return gone() != null ? -1 >>> 32 - 8 * width : config.read(offset, width);
    }

    @Override
    public void writeConfig(int offset, int width, int value) {
        synchronized (this) {
            if (gone() != null) {
                return;
            }
            config.write(offset, width, value);
            command();
        }
    }

    private void command() {
        decodes = config.has(PciRegisters.COMMAND_MEMORY);
        pinDisabled = config.has(PciRegisters.COMMAND_INTX_DISABLE);
        busMaster(config.has(PciRegisters.COMMAND_BUS_MASTER));
    }

    @Override
    public long barBytes(int bar) {
        return config.barBytes(bar);
    }

    @Override
    public int read(int bar, long offset, int width) {
        int ones = -1 >>> 32 - 8 * width;
        if (gone() != null || !decodes) {
            return ones;
        }
        int at = (int) offset;
        if (bar == EmulatedConfig.MSIX_BAR) {
            return width == 4 && at < msix.bytes() ? msix.read(at) : 0;
        }
        if (at == EmulatedConfig.ISR) {
            return clearInterruptStatus(-1);
        }
        if (at >= EmulatedConfig.DEVICE && at < EmulatedConfig.NOTIFY) {
            return deviceConfig(at - EmulatedConfig.DEVICE, width);
        }
        return at < PciRegisters.COMMON_RESET_BYTES ? common.read(at) & ones : 0;
    }

    @Override
    public void write(int bar, long offset, int width, int value) {
        if (gone() != null || !decodes) {
            return;
        }
        int at = (int) offset;
        if (bar == EmulatedConfig.MSIX_BAR) {
            if (width == 4 && at < msix.bytes()) {
                msix.write(at, value);
            }
        } else if (at >= EmulatedConfig.NOTIFY) {
            // Where it is written says which queue; what is written says no more (4.1.5.2).
            schedule((at - EmulatedConfig.NOTIFY) / EmulatedConfig.NOTIFY_MULTIPLIER);
        } else if (at >= EmulatedConfig.DEVICE) {
            deviceConfig(at - EmulatedConfig.DEVICE, width, value);
        } else {
            common.write(at, value);
        }
    }

    @Override
    public boolean translated() {
        return false;
    }

    @Override
    public synchronized int enableMsix(int vectors) {
        for (int vector = 0; vector < vectors; vector++) {
            handle(line(vector), vector);
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
        handle(pin, PIN);
        return true;
    }

    private void handle(InterruptLine line, int vector) {
        Driver handler = driver;
        line.handler(() -> handler.interrupt(vector));
    }

    @Override
    public void disableInterrupts() {
        msix.control(0);
        for (int line = 0; line <= vectors; line++) {
            line(line).handler(null);
        }
    }

    private void message(int data) {
        if (isBusMaster() && data >= 0 && data < vectors) {
            line(data).raise();
        }
    }

    boolean pinAsserted() {
        return !msix.enabled() && interruptStatus() != 0;
    }

    @Override
    public void interrupt(int queue) {
        // Nothing is notified of before DRIVER_OK, nor after a reset (virtio 2.1.2, 2.4.2).
        if (!isDriverOk()) {
            return;
        }
        if (msix.enabled()) {
            int vector = common.vectorOf(queue);
            if (vector != PciRegisters.NO_VECTOR) {
                msix.send(vector);
            }
        } else if (setInterruptStatus(PciRegisters.ISR_QUEUE) && !pinDisabled) {
            pin.raise();
        }
    }

    @Override
    public void configChanged() {
        if (!isDriverOk()) {
            return;
        }
        boolean first = setInterruptStatus(PciRegisters.ISR_CONFIG);
        if (msix.enabled()) {
            int vector = common.configVector();
            if (vector != PciRegisters.NO_VECTOR) {
                msix.send(vector);
            }
        } else if (first && !pinDisabled) {
            pin.raise();
        }
    }
}
