package virtio.transport.pci;

import virtio.api.transport.EmulatedQueue;

import java.util.concurrent.atomic.AtomicIntegerArray;

/**
 * The common configuration of an emulated function (virtio 4.1.4.3): its registers, and the vectors
 * that they hold.
 *
 * <p>Threading: as {@link PciFunction}; vectors may be asked for by any thread.
 */
final class CommonConfig {
    private final EmulatedFunction function;
    private final int vectors;
    private final AtomicIntegerArray queueVectors;
    private volatile int configVector;
    private volatile int deviceFeatureSelect;
    private volatile int driverFeatureSelect;
    private volatile int queueSelect;

    CommonConfig(EmulatedFunction function, int vectors) {
        this.function = function;
        this.vectors = vectors;
        queueVectors = new AtomicIntegerArray(function.queueCount());
        unmapVectors();
    }

    /** As after a reset (4.1.5.1.2.1). */
    void unmapVectors() {
        configVector = PciRegisters.NO_VECTOR;
        for (int queue = 0; queue < queueVectors.length(); queue++) {
            queueVectors.set(queue, PciRegisters.NO_VECTOR);
        }
    }

    /** The vector of the configuration. */
    int configVector() {
        return configVector;
    }

    /** The vector of a queue. */
    int vectorOf(int queue) {
        return queueVectors.get(queue);
    }

    int read(int offset) {
        return switch (offset) {
            case PciRegisters.DEVICE_FEATURE_SELECT -> deviceFeatureSelect;
            case PciRegisters.DEVICE_FEATURE -> function.deviceFeature(deviceFeatureSelect);
            case PciRegisters.DRIVER_FEATURE_SELECT -> driverFeatureSelect;
            case PciRegisters.DRIVER_FEATURE -> function.driverFeature(driverFeatureSelect);
            case PciRegisters.CONFIG_MSIX_VECTOR -> configVector;
            case PciRegisters.NUM_QUEUES -> function.queueCount();
            case PciRegisters.DEVICE_STATUS -> function.status();
            case PciRegisters.CONFIG_GENERATION -> function.configGeneration();
            case PciRegisters.QUEUE_SELECT -> queueSelect;
            default -> {
                EmulatedQueue queue = function.queue(queueSelect);
                yield queue == null ? 0 : queueRegister(queue, offset);
            }
        };
    }

    private int queueRegister(EmulatedQueue queue, int offset) {
        return switch (offset) {
            case PciRegisters.QUEUE_SIZE -> queue.size();
            case PciRegisters.QUEUE_MSIX_VECTOR -> vectorOf(queue.index());
            case PciRegisters.QUEUE_ENABLE -> queue.isReady() ? 1 : 0;
            case PciRegisters.QUEUE_RESET -> queue.isResetting() ? 1 : 0;
            case PciRegisters.QUEUE_NOTIFY_OFF -> queue.index();
            default -> isArea(offset) ? queue.area((offset - PciRegisters.QUEUE_DESC) / 4) : 0;
        };
    }

    /** Whether that is half of one of the areas' addresses, which follow on each other. */
    private static boolean isArea(int offset) {
        return offset % 4 == 0
                && offset >= PciRegisters.QUEUE_DESC
                && offset < PciRegisters.COMMON_BYTES;
    }

    void write(int offset, int value) {
        switch (offset) {
            case PciRegisters.DEVICE_FEATURE_SELECT -> deviceFeatureSelect = value;
            case PciRegisters.DRIVER_FEATURE_SELECT -> driverFeatureSelect = value;
            case PciRegisters.DRIVER_FEATURE -> function.driverFeature(driverFeatureSelect, value);
            case PciRegisters.CONFIG_MSIX_VECTOR -> configVector = vector(value);
            case PciRegisters.QUEUE_SELECT -> queueSelect = value & 0xffff;
            case PciRegisters.DEVICE_STATUS -> {
                function.status(value & 0xff);
                if (function.status() == 0) {
                    unmapVectors();
                }
            }
            default -> {
                EmulatedQueue queue = function.queue(queueSelect);
                if (queue != null) {
                    queueRegister(queue, offset, value);
                }
            }
        }
    }

    /** The vector if there is one of that number, else NO_VECTOR (4.1.5.1.2.1). */
    private int vector(int value) {
        int number = value & 0xffff;
        return number < vectors ? number : PciRegisters.NO_VECTOR;
    }

    private void queueRegister(EmulatedQueue queue, int offset, int value) {
        int half = value & 0xffff;
        switch (offset) {
            case PciRegisters.QUEUE_MSIX_VECTOR -> queueVectors.set(queue.index(), vector(value));
            case PciRegisters.QUEUE_RESET -> {
                if (half == 1 && queue.reset()) {
                    queueVectors.set(queue.index(), PciRegisters.NO_VECTOR);
                }
            }
            case PciRegisters.QUEUE_ENABLE -> {
                // A written 0 is no way to stop a queue (4.1.4.3.2).
                if (half == 1) {
                    queue.start();
                }
            }
            case PciRegisters.QUEUE_SIZE -> queue.size(half);
            default -> {
                if (isArea(offset)) {
                    queue.area((offset - PciRegisters.QUEUE_DESC) / 4, value);
                }
            }
        }
    }
}
