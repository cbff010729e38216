package virtio.transport.pci;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.ExportedDevice;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The common configuration of an emulated function (virtio 4.1.4.3): device status, features and
 * queues.
 *
 * <p>Writes and resets come one at a time, under the function's lock; what is read without it says
 * how things stand, so that a reset that takes its time can be watched.
 */
final class CommonConfig {
    /** What the function itself offers. */
    private static final Features OWN =
            Features.of(Feature.ACCESS_PLATFORM, Feature.NOTIFICATION_DATA, Feature.RING_RESET);

    /** What is not emulated here. */
    private static final Features NOT_HERE =
            Features.of(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ);

    private static final Logger LOG = System.getLogger(CommonConfig.class.getName());
    private static final int STATUS_MASK = 0xff;
    private static final int ISR_SHIFT = 8;

    private final String where;
    private final EmulatedFunction function;
    private final ExportedDevice device;
    private final int vectors;
    private final Features offered;
    private final FunctionQueue[] queues;

    /**
     * Device status, and the interrupt status from bit 8: one word, so that a reset clears both.
     */
    private final AtomicInteger state = new AtomicInteger();

    private final int[] driverFeatures = new int[PciRegisters.FEATURE_WORDS];
    private volatile int deviceFeatureSelect;
    private volatile int driverFeatureSelect;
    private volatile int queueSelect;
    private volatile int configVector = PciRegisters.NO_VECTOR;
    private volatile Features accepted = Features.NONE;

    CommonConfig(String where, EmulatedFunction function, ExportedDevice device, int vectors) {
        this.where = where;
        this.function = function;
        this.device = device;
        this.vectors = vectors;
        Features all = device.offered().andNot(NOT_HERE).or(OWN);
        offered = Features.ofWords(all.word(0), all.word(1));
        queues = new FunctionQueue[device.queueCount()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = new FunctionQueue(function, i);
            queues[i].clear(device.maxQueueSize());
        }
    }

    int queueCount() {
        return queues.length;
    }

    /** The vector of the configuration. */
    int configVector() {
        return configVector;
    }

    /** The vector of a queue. */
    int vectorOf(int queue) {
        return queues[queue].vector;
    }

    void wake(int queue) {
        queues[queue].wake();
    }

    int read(int offset) {
        return switch (offset) {
            case PciRegisters.DEVICE_FEATURE_SELECT -> deviceFeatureSelect;
            case PciRegisters.DEVICE_FEATURE -> word(offered, deviceFeatureSelect);
            case PciRegisters.DRIVER_FEATURE_SELECT -> driverFeatureSelect;
            case PciRegisters.DRIVER_FEATURE -> driverFeature();
            case PciRegisters.CONFIG_MSIX_VECTOR -> configVector;
            case PciRegisters.NUM_QUEUES -> queues.length;
            case PciRegisters.DEVICE_STATUS -> state.get() & STATUS_MASK;
            case PciRegisters.CONFIG_GENERATION -> function.generation();
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

    void write(int at, int value) {
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
        return number < vectors ? number : PciRegisters.NO_VECTOR;
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
        } else if (function.memory() == null) {
            refusal = "nobody has taken the function";
        } else {
            try {
                device.startQueue(index, queue.layout(), function.memory(), function);
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
        if (function.runs()) {
            queue.wake();
        }
    }

    /** Afterwards no thread is in the queue; the caller holds the lock. */
    private void stop(FunctionQueue queue) {
        function.refuseOwnThread();
        queue.halt();
        device.stopQueue(queue.index);
        queue.join();
    }

    private void status(int value) {
        if ((value & STATUS_MASK) == 0) {
            function.refuseOwnThread();
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

    void wakeAll() {
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

    /**
     * Resets; false when a thread does not leave the device: the status then does not read as 0.
     */
    boolean quiesce() {
        try {
            reset();
            return true;
        } catch (IllegalStateException e) {
            LOG.log(Level.ERROR, "{0} is not reset: {1}", where, e.getMessage());
            return false;
        }
    }

    boolean has(int status) {
        return (state.get() & status) != 0;
    }

    /** Adds DEVICE_NEEDS_RESET; false when the device was reset meanwhile. */
    boolean needReset() {
        int seen;
        do {
            seen = state.get();
            if ((seen & STATUS_MASK) == 0) {
                return false;
            }
        } while (!state.compareAndSet(seen, seen | DeviceStatus.DEVICE_NEEDS_RESET));
        return true;
    }

    /** The interrupt status, which stays. */
    int isr() {
        return state.get() >>> ISR_SHIFT;
    }

    /** The interrupt status, which is 0 afterwards (4.1.4.5.1). */
    int takeIsr() {
        return state.getAndUpdate(seen -> seen & STATUS_MASK) >>> ISR_SHIFT;
    }

    /** False when the bit stood already, or when a reset came in between. */
    boolean setIsr(int bit) {
        int seen;
        do {
            seen = state.get();
            if ((seen & DeviceStatus.DRIVER_OK) == 0 || (seen & bit << ISR_SHIFT) != 0) {
                return false;
            }
        } while (!state.compareAndSet(seen, seen | bit << ISR_SHIFT));
        return true;
    }

    /** Whether that is the thread of a queue. */
    boolean isOwn(Thread thread) {
        boolean own = false;
        for (FunctionQueue queue : queues) {
            own |= queue.isOwn(thread);
        }
        return own;
    }
}
