package virtio.transport.pci;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.map.RegionMemory;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.locks.LockSupport;

/** The driver end, on the structures of a function (virtio 4.1). */
final class PciTransport implements Transport, PciFunction.Driver {
    private static final Logger LOG = System.getLogger(PciTransport.class.getPackageName());

    /** How long a device may take to reset itself or a queue. */
    private static final long RESET_MILLIS = 10_000;

    private final String where;
    private final PciFunction function;
    private final RegionMemory memory;
    private Capabilities capabilities;
    private int deviceType;

    /** Vectors that are delivered; 0 with the pin, or without any interrupt. */
    private volatile int vectors;

    private volatile StartedQueues started = StartedQueues.none(1);
    private volatile int notifyBytes = 2;
    private volatile Listener listener;
    private volatile boolean closed;
    private volatile VirtioException lost;
    private boolean goneReported;
    private boolean ringReset;
    private boolean packed;

    /**
     * A driver that has not looked at the function yet.
     *
     * @param where whole address, for messages
     */
    PciTransport(String where, PciFunction function, RegionMemory memory) {
        this.where = where;
        this.function = function;
        this.memory = memory;
    }

    /**
     * The device type of what is there, by its identity (4.1.2); -1 when it is no virtio device.
     */
    static int deviceType(int vendor, int id, int subsystem) {
        if (vendor != PciRegisters.VENDOR
                || id < PciRegisters.TRANSITIONAL_FIRST
                || id > PciRegisters.MODERN_LAST) {
            return -1;
        }
        return id >= PciRegisters.MODERN_FIRST ? id - PciRegisters.MODERN_FIRST : subsystem;
    }

    private void command(int bits) {
        int command = function.readConfig(PciRegisters.COMMAND, 2);
        function.writeConfig(PciRegisters.COMMAND, 2, command | bits);
    }

    /**
     * Checks what is there, resets it, lets it access memory and has its interrupts delivered, as
     * far as it has any; to be called once, when the function is this driver's.
     *
     * @throws VirtioException when it is no virtio 1 device
     */
    void start() throws VirtioException {
        int vendor = function.readConfig(PciRegisters.VENDOR_ID, 2);
        int id = function.readConfig(PciRegisters.DEVICE_ID, 2);
        check();
        deviceType = deviceType(vendor, id, function.readConfig(PciRegisters.SUBSYSTEM_ID, 2));
        if (deviceType < 0) {
            throw new VirtioException(
                    "%s is no virtio device: vendor 0x%04x, device 0x%04x"
                            .formatted(where, vendor, id));
        }
        command(PciRegisters.COMMAND_MEMORY);
        capabilities = Capabilities.of(where, function);
        capabilities.sharedMemory().forEach(this::refuse);
        status(0);
        command(PciRegisters.COMMAND_BUS_MASTER);
        int wanted = Math.min(read16(PciRegisters.NUM_QUEUES) + 1, PciFunction.MOST_VECTORS);
        wanted = Math.min(wanted, capabilities.msixVectors());
        int granted = wanted > 0 ? function.enableMsix(wanted) : 0;
        if (granted > 0) {
            useVectors(granted);
        } else {
            usePin();
        }
    }

    /** Said, as whoever attaches such a device expects it; no driver can ask for it. */
    private void refuse(int id, Capabilities.Structure region) {
        LOG.log(
                Level.WARNING,
                "{0} has shared memory region {1} of {2} bytes, which is not handed to drivers",
                where,
                id,
                Long.toString(region.bytes()));
    }

    private void useVectors(int count) {
        vectors = count;
        started = StartedQueues.none(count);
    }

    private void usePin() throws VirtioException {
        vectors = 0;
        started = StartedQueues.none(1);
        if (!function.enablePin()) {
            LOG.log(Level.WARNING, "{0} has no interrupt: its queues can only be polled", where);
        }
    }

    private long at(Capabilities.Structure structure, int offset) {
        return structure.offset() + offset;
    }

    private int read(int offset, int width) throws VirtioException {
        Capabilities.Structure common = capabilities.common();
        check();
        int value = function.read(common.bar(), at(common, offset), width);
        check();
        return value;
    }

    private int read16(int offset) throws VirtioException {
        return read(offset, 2);
    }

    private void write(int offset, int width, int value) throws VirtioException {
        Capabilities.Structure common = capabilities.common();
        check();
        function.write(common.bar(), at(common, offset), width, value);
    }

    private void write64(int offset, long value) throws VirtioException {
        write(offset, 4, (int) value);
        write(offset + 4, 4, (int) (value >>> 32));
    }

    private void check() throws VirtioException {
        if (closed) {
            throw new VirtioException(where + " is closed");
        }
        VirtioException reason = reason();
        if (reason != null) {
            throw new VirtioException(reason.getMessage(), reason);
        }
    }

    private VirtioException reason() {
        VirtioException reason = function.gone();
        return reason != null ? reason : lost;
    }

    @Override
    public int deviceType() throws VirtioException {
        check();
        return deviceType;
    }

    @Override
    public Features offered() throws VirtioException {
        long[] words = new long[PciRegisters.FEATURE_WORDS / 2];
        for (int select = 0; select < PciRegisters.FEATURE_WORDS; select++) {
            write(PciRegisters.DEVICE_FEATURE_SELECT, 4, select);
            long bits = Integer.toUnsignedLong(read(PciRegisters.DEVICE_FEATURE, 4));
            words[select >> 1] |= bits << 32 * (select & 1);
        }
        Features offered =
                Features.ofWords(words)
                        .without(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ);
        if (function.translated() && !offered.has(Feature.ACCESS_PLATFORM)) {
            throw new VirtioException(
                    where
                            + " does not offer ACCESS_PLATFORM and would access memory behind the"
                            + " IOMMU's back: have it offered (QEMU: iommu_platform=on)");
        }
        boolean canReset = capabilities.common().bytes() >= PciRegisters.COMMON_RESET_BYTES;
        return canReset ? offered : offered.without(Feature.RING_RESET);
    }

    @Override
    public void accept(Features features) throws VirtioException {
        int beyond = features.stream().filter(bit -> bit >= 128).findFirst().orElse(-1);
        if (beyond >= 0) {
            throw new VirtioException(
                    "%s cannot carry feature bit %d, limit is 127".formatted(where, beyond));
        }
        if (function.translated() && !features.has(Feature.ACCESS_PLATFORM)) {
            throw new VirtioException(where + " is behind an IOMMU and needs ACCESS_PLATFORM");
        }
        for (int select = 0; select < PciRegisters.FEATURE_WORDS; select++) {
            write(PciRegisters.DRIVER_FEATURE_SELECT, 4, select);
            int bits = (int) (features.word(select >> 1) >>> 32 * (select & 1));
            write(PciRegisters.DRIVER_FEATURE, 4, bits);
        }
        ringReset = features.has(Feature.RING_RESET);
        packed = features.has(Feature.RING_PACKED);
        notifyBytes = features.has(Feature.NOTIFICATION_DATA) ? 4 : 2;
        mapConfigVector();
    }

    /** After each reset, as that unmaps it (4.1.5.1.2.1). */
    private void mapConfigVector() throws VirtioException {
        if (vectors > 0 && !mapVector(PciRegisters.CONFIG_MSIX_VECTOR, 0)) {
            LOG.log(Level.WARNING, "{0} does not map vector 0: the pin is used instead", where);
            function.disableInterrupts();
            usePin();
        }
    }

    /** Maps an event to a vector and sees whether the device could. */
    private boolean mapVector(int register, int vector) throws VirtioException {
        write(register, 2, vector);
        return read16(register) == vector;
    }

    @Override
    public int status() throws VirtioException {
        int status = read(PciRegisters.DEVICE_STATUS, 1);
        // No device ever sets all bits; a bus answers so for one that was pulled.
        if (status == 0xff && function.readConfig(PciRegisters.VENDOR_ID, 2) == 0xffff) {
            lost = new VirtioException(where + " was removed: it reads as all ones");
            gone();
            check();
        }
        return status;
    }

    @Override
    public void status(int value) throws VirtioException {
        write(PciRegisters.DEVICE_STATUS, 1, value);
        if (value == 0) {
            long end = System.nanoTime() + RESET_MILLIS * 1_000_000;
            int status;
            while ((status = status()) != 0) {
                keepWaiting(end, "the device, its status is still " + DeviceStatus.name(status));
            }
            started = started.only(queue -> false);
            ringReset = false;
            notifyBytes = 2;
        }
    }

    /** A device that takes its time to reset does so in its own time, up to a limit. */
    private void keepWaiting(long end, String what) throws VirtioException {
        if (System.nanoTime() - end > 0) {
            throw new VirtioException(
                    "%s did not reset %s after %d ms".formatted(where, what, RESET_MILLIS));
        }
        LockSupport.parkNanos(50_000);
    }

    @Override
    public int configGeneration() throws VirtioException {
        return read(PciRegisters.CONFIG_GENERATION, 1);
    }

    /**
     * One access for 1, 2 and 4 bytes at their natural alignment, two for 8; other lengths are read
     * byte by byte, as arrays of bytes are (4.1.3.1).
     */
    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        int width = width(offset, into.length);
        Capabilities.Structure device = capabilities.device();
        for (int done = 0; done < into.length; done += width) {
            int value = function.read(device.bar(), at(device, offset + done), width);
            for (int i = 0; i < width; i++) {
                into[done + i] = (byte) (value >>> 8 * i);
            }
        }
        check();
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        int width = width(offset, from.length);
        Capabilities.Structure device = capabilities.device();
        for (int done = 0; done < from.length; done += width) {
            int value = 0;
            for (int i = 0; i < width; i++) {
                value |= (from[done + i] & 0xff) << 8 * i;
            }
            function.write(device.bar(), at(device, offset + done), width, value);
        }
    }

    private int width(int offset, int length) throws VirtioException {
        check();
        long bytes = capabilities.device() == null ? 0 : capabilities.device().bytes();
        if (offset < 0 || length > bytes - offset) {
            throw new VirtioException(
                    "configuration bytes %d to %d of %s, which has %d"
                            .formatted(offset, (long) offset + length - 1, where, bytes));
        }
        boolean field = length == 2 || length == 4 || length == 8;
        int width = field ? Math.min(length, 4) : 1;
        return offset % width == 0 ? width : 1;
    }

    @Override
    public int maxQueueSize(int queue) throws VirtioException {
        if (queue < 0 || queue >= read16(PciRegisters.NUM_QUEUES)) {
            return 0;
        }
        write(PciRegisters.QUEUE_SELECT, 2, queue);
        return read16(PciRegisters.QUEUE_SIZE);
    }

    @Override
    public MapToken mapToken(int queue) {
        return memory;
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        int max = maxQueueSize(queue);
        if (max > 0 && read16(PciRegisters.QUEUE_ENABLE) != 0) {
            throw new VirtioException("queue %d of %s is in use already".formatted(queue, where));
        }
        if (layout.size() <= 0 || layout.size() > max) {
            throw new VirtioException(
                    "queue %d of %s with %d descriptors, limits are 1 and %d"
                            .formatted(queue, where, layout.size(), max));
        }
        if (!packed && Integer.bitCount(layout.size()) != 1) {
            throw new VirtioException(
                    "queue %d of %s with %d descriptors, which is no power of two"
                            .formatted(queue, where, layout.size()));
        }
        long notifyOffset = notifyOffset(queue);
        write(PciRegisters.QUEUE_SIZE, 2, layout.size());
        int vector = vectors > 0 ? mapQueueVector(queue) : 0;
        write64(PciRegisters.QUEUE_DESC, layout.descriptorArea());
        write64(PciRegisters.QUEUE_DRIVER, layout.driverArea());
        write64(PciRegisters.QUEUE_DEVICE, layout.deviceArea());
        started = started.with(queue, vector, notifyOffset);
        write(PciRegisters.QUEUE_ENABLE, 2, 1);
        if (read16(PciRegisters.QUEUE_ENABLE) != 1) {
            started = started.only(other -> other != queue);
            throw new VirtioException(
                    "%s refused queue %d with %d descriptors, of at most %d"
                            .formatted(where, queue, layout.size(), max));
        }
    }

    /** Where the selected queue is notified (4.1.4.4). */
    private long notifyOffset(int queue) throws VirtioException {
        Capabilities.Structure notify = capabilities.notifications();
        long offset = read16(PciRegisters.QUEUE_NOTIFY_OFF) * capabilities.notifyMultiplier();
        if (offset + notifyBytes > notify.bytes()) {
            throw new VirtioException(
                    "queue %d of %s is notified at %d, beyond the structure's %d bytes"
                            .formatted(queue, where, offset, notify.bytes()));
        }
        if (offset % notifyBytes != 0 || notify.offset() % notifyBytes != 0) {
            throw new VirtioException(
                    "queue %d of %s is notified at %d, no multiple of %d"
                            .formatted(queue, where, notify.offset() + offset, notifyBytes));
        }
        return notify.offset() + offset;
    }

    /**
     * A vector of its own for the selected queue while there are enough, else a shared one; where
     * the device refuses that, ever fewer (4.1.5.1.2.2).
     */
    private int mapQueueVector(int queue) throws VirtioException {
        int own = vectors == 1 ? 0 : 1 + queue % (vectors - 1);
        for (int vector : new int[] {own, Math.min(own, 1), 0}) {
            if (mapVector(PciRegisters.QUEUE_MSIX_VECTOR, vector)) {
                return vector;
            }
        }
        throw new VirtioException(
                "%s maps queue %d to no vector, %d and 0 were tried".formatted(where, queue, own));
    }

    @Override
    public boolean stopQueue(int queue) throws VirtioException {
        if (!ringReset) {
            return false;
        }
        write(PciRegisters.QUEUE_SELECT, 2, queue);
        write(PciRegisters.QUEUE_RESET, 2, 1);
        long end = System.nanoTime() + RESET_MILLIS * 1_000_000;
        while (read16(PciRegisters.QUEUE_RESET) != 0) {
            keepWaiting(end, "queue " + queue);
        }
        started = started.only(other -> other != queue);
        return true;
    }

    @Override
    public void notifyQueue(int queue, int data) {
        long offset = started.notifyOffset(queue);
        if (!closed && offset >= 0) {
            function.write(capabilities.notifications().bar(), offset, notifyBytes, data);
        }
    }

    @Override
    public void listen(Listener listener) {
        this.listener = listener;
        if (reason() != null) {
            gone();
        }
    }

    @Override
    public void interrupt(int vector) {
        Listener told = listener;
        if (told == null || closed) {
            return;
        }
        boolean used = true;
        boolean changed = vector == 0;
        if (vector <= 0 && (vectors <= 1 || started.of(0).length > 0)) {
            // The pin, or a vector that stands for both: only the status says what it was, and
            // reading it lowers the pin (4.1.4.5).
            Capabilities.Structure isr = capabilities.isr();
            int bits = function.read(isr.bar(), isr.offset(), 1);
            changed = (bits & PciRegisters.ISR_CONFIG) != 0;
            used = vector >= 0 || (bits & PciRegisters.ISR_QUEUE) != 0;
        }
        if (reason() != null) {
            return;
        }
        try {
            if (used) {
                for (int queue : started.of(Math.max(vector, 0))) {
                    told.queueUsed(queue);
                }
            }
            if (changed) {
                told.configChanged();
            }
        } catch (RuntimeException e) {
            // The thread is the function's, which has no part in the driver's failure.
            LOG.log(Level.ERROR, "interrupt of " + where, e);
        }
    }

    @Override
    public void gone() {
        Listener told = listener;
        synchronized (this) {
            if (told == null || goneReported || closed) {
                return;
            }
            goneReported = true;
        }
        told.gone(reason());
    }

    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        function.detach(this);
        memory.release();
    }
}
