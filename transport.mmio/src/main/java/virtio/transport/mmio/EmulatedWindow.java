package virtio.transport.mmio;

import virtio.api.Feature;
import virtio.api.VirtioException;
import virtio.api.transport.EmulatedDevice;
import virtio.api.transport.EmulatedMemory;
import virtio.api.transport.EmulatedQueue;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.InterruptLine;

/** The device end: the registers of a device in software, in the same process as its driver. */
final class EmulatedWindow extends EmulatedDevice implements RegisterWindow {
    /** "VRTJ", in the manner of the vendor ids that others show here. */
    private static final int VENDOR = 0x4a545256;

    private final ExportedDevice device;
    private final InterruptLine line = line(0);
    private volatile int deviceFeaturesSel;
    private volatile int driverFeaturesSel;
    private volatile int queueSel;
    private volatile boolean notificationData;

    /**
     * A window in which nobody is yet.
     *
     * @param onClose run once when the window is withdrawn
     */
    EmulatedWindow(String name, ExportedDevice device, Runnable onClose) {
        super("mmio:" + name, device, 1, 0, true, onClose);
        this.device = device;
    }

    /**
     * Takes the window for a driver.
     *
     * @param visible what the device sees of the driver's memory, held until {@link #detach}
     */
    synchronized void attach(Driver taker, EmulatedMemory visible) throws VirtioException {
        take(taker, visible, taker::gone);
        line.handler(taker::interrupt);
    }

    @Override
    public void detach(Driver leaver) {
        letGo(leaver);
    }

    @Override
    public int read(int offset) {
        if (gone() != null) {
            return -1;
        }
        return switch (offset) {
            case MmioRegisters.MAGIC_VALUE -> MmioRegisters.MAGIC;
            case MmioRegisters.VERSION -> MmioRegisters.VERSION_2;
            case MmioRegisters.DEVICE_ID -> device.deviceType();
            case MmioRegisters.VENDOR_ID -> VENDOR;
            case MmioRegisters.DEVICE_FEATURES -> deviceFeature(deviceFeaturesSel);
            case MmioRegisters.INTERRUPT_STATUS -> interruptStatus();
            case MmioRegisters.STATUS -> status();
            case MmioRegisters.SHM_LEN_LOW,
                    MmioRegisters.SHM_LEN_HIGH,
                    MmioRegisters.SHM_BASE_LOW,
                    MmioRegisters.SHM_BASE_HIGH ->
                    -1;
            case MmioRegisters.CONFIG_GENERATION -> configGeneration();
            default -> {
                EmulatedQueue queue = queue(queueSel);
                yield queue == null ? 0 : queueRegister(queue, offset);
            }
        };
    }

    private static int queueRegister(EmulatedQueue queue, int offset) {
        return switch (offset) {
            case MmioRegisters.QUEUE_SIZE_MAX -> queue.maxSize();
            case MmioRegisters.QUEUE_READY -> queue.isReady() ? 1 : 0;
            case MmioRegisters.QUEUE_RESET -> queue.isResetting() ? 1 : 0;
            default -> 0;
        };
    }

    @Override
    public void write(int offset, int value) {
        switch (offset) {
            // NOTIFICATION_DATA: queue number in the lower half, ring position in the upper.
            case MmioRegisters.QUEUE_NOTIFY -> schedule(notificationData ? value & 0xffff : value);
            case MmioRegisters.INTERRUPT_ACK -> clearInterruptStatus(value);
            case MmioRegisters.DEVICE_FEATURES_SEL -> deviceFeaturesSel = value;
            case MmioRegisters.DRIVER_FEATURES_SEL -> driverFeaturesSel = value;
            case MmioRegisters.DRIVER_FEATURES -> driverFeature(driverFeaturesSel, value);
            case MmioRegisters.QUEUE_SEL -> queueSel = value;
            case MmioRegisters.STATUS -> {
                status(value);
                notificationData = accepted().has(Feature.NOTIFICATION_DATA);
            }
            default -> {
                EmulatedQueue queue = queue(queueSel);
                if (queue != null) {
                    queueRegister(queue, offset, value);
                }
            }
        }
    }

    private static void queueRegister(EmulatedQueue queue, int offset, int value) {
        switch (offset) {
            case MmioRegisters.QUEUE_RESET -> {
                if (value == 1) {
                    queue.reset();
                }
            }
            case MmioRegisters.QUEUE_READY -> {
                if (value == 1) {
                    queue.start();
                } else if (value == 0) {
                    queue.stop();
                }
            }
            // The fields of a live queue are not the driver's to write (4.2.2.2).
            case MmioRegisters.QUEUE_SIZE -> queue.size(value);
            case MmioRegisters.QUEUE_DESC_LOW -> queue.area(0, value);
            case MmioRegisters.QUEUE_DESC_HIGH -> queue.area(1, value);
            case MmioRegisters.QUEUE_DRIVER_LOW -> queue.area(2, value);
            case MmioRegisters.QUEUE_DRIVER_HIGH -> queue.area(3, value);
            case MmioRegisters.QUEUE_DEVICE_LOW -> queue.area(4, value);
            case MmioRegisters.QUEUE_DEVICE_HIGH -> queue.area(5, value);
            default -> {}
        }
    }

    @Override
    public int configBytes() {
        return device.configSize();
    }

    @Override
    public int readConfig(int offset, int width) {
        return deviceConfig(offset, width);
    }

    @Override
    public void writeConfig(int offset, int width, int value) {
        deviceConfig(offset, width, value);
    }

    @Override
    public void interrupt(int queue) {
        raise(MmioRegisters.INTERRUPT_USED);
    }

    @Override
    public void configChanged() {
        raise(MmioRegisters.INTERRUPT_CONFIG);
    }

    private void raise(int bit) {
        if (setInterruptStatus(bit)) {
            line.raise();
        }
    }
}
