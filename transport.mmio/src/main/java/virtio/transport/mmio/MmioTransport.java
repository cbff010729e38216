package virtio.transport.mmio;

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
import java.util.Arrays;
import java.util.concurrent.locks.LockSupport;

/** The driver end, on the registers of a window (virtio 4.2). */
final class MmioTransport implements Transport, RegisterWindow.Driver {
    private static final Logger LOG = System.getLogger(MmioTransport.class.getPackageName());

    /** How long a device may take to reset itself or a queue. */
    private static final long RESET_MILLIS = 10_000;

    private static final int KNOWN_INTERRUPTS =
            MmioRegisters.INTERRUPT_USED | MmioRegisters.INTERRUPT_CONFIG;

    /** Most acknowledgements of one interrupt, beyond the first; there are two kinds of events. */
    private static final int ACKNOWLEDGEMENTS = 16;

    private final String name;
    private final RegisterWindow window;
    private final RegionMemory memory;
    private final int deviceType;

    /** Numbers of the queues that are started; a new array at each change. */
    private volatile int[] active = {};

    private volatile Listener listener;
    private volatile boolean closed;
    private boolean goneReported;
    private boolean ringReset;

    /**
     * Checks what is in the window, in the order of 4.2.3.1.1.
     *
     * @throws VirtioException when it is no device of version 2
     */
    MmioTransport(String name, RegisterWindow window, RegionMemory memory) throws VirtioException {
        this.name = name;
        this.window = window;
        this.memory = memory;
        deviceType = identify(name, window);
        check();
    }

    /**
     * Reads what is in the window, and nothing more when it is no device that can be driven.
     *
     * @return the device type
     */
    static int identify(String name, RegisterWindow window) throws VirtioException {
        int magic = window.read(MmioRegisters.MAGIC_VALUE);
        VirtioException gone = window.gone();
        if (gone != null) {
            throw new VirtioException(gone.getMessage(), gone);
        }
        if (magic != MmioRegisters.MAGIC) {
            throw new VirtioException(
                    "mmio:%s is no virtio window: magic value 0x%08x, not 0x%08x"
                            .formatted(name, magic, MmioRegisters.MAGIC));
        }
        int version = window.read(MmioRegisters.VERSION);
        if (version != MmioRegisters.VERSION_2) {
            throw new VirtioException(
                    "mmio:%s has register version %d%s; only version 2 is driven"
                            .formatted(
                                    name,
                                    version,
                                    version == MmioRegisters.VERSION_LEGACY ? " (legacy)" : ""));
        }
        int type = window.read(MmioRegisters.DEVICE_ID);
        if (type == 0) {
            throw new VirtioException("mmio:%s has no device behind it".formatted(name));
        }
        return type;
    }

    private int read(int offset) throws VirtioException {
        int value = window.read(offset);
        check();
        return value;
    }

    private void write(int offset, int value) throws VirtioException {
        check();
        window.write(offset, value);
    }

    private void check() throws VirtioException {
        if (closed) {
            throw new VirtioException("mmio:%s is closed".formatted(name));
        }
        VirtioException reason = window.gone();
        if (reason != null) {
            throw new VirtioException(reason.getMessage(), reason);
        }
    }

    @Override
    public int deviceType() throws VirtioException {
        check();
        return deviceType;
    }

    @Override
    public Features offered() throws VirtioException {
        long[] words = new long[MmioRegisters.FEATURE_WORDS / 2];
        for (int sel = 0; sel < MmioRegisters.FEATURE_WORDS; sel++) {
            write(MmioRegisters.DEVICE_FEATURES_SEL, sel);
            long bits = Integer.toUnsignedLong(read(MmioRegisters.DEVICE_FEATURES));
            words[sel >> 1] |= bits << 32 * (sel & 1);
        }
        long second = words[0] >>> 32;
        long repeated = second | second << 32;
        if (words[1] == repeated && words[1] != 0) {
            // Some devices know two words only and show the second one for all that follow.
            words[1] = 0;
        }
        return Features.ofWords(words)
                .without(Feature.SR_IOV, Feature.NOTIF_CONFIG_DATA, Feature.ADMIN_VQ);
    }

    @Override
    public void accept(Features features) throws VirtioException {
        int beyond = features.stream().filter(bit -> bit >= 128).findFirst().orElse(-1);
        if (beyond >= 0) {
            throw new VirtioException(
                    "mmio:%s cannot carry feature bit %d, limit is 127".formatted(name, beyond));
        }
        // From the last to the first: who knows two words only takes the others for the second.
        for (int sel = MmioRegisters.FEATURE_WORDS - 1; sel >= 0; sel--) {
            write(MmioRegisters.DRIVER_FEATURES_SEL, sel);
            write(
                    MmioRegisters.DRIVER_FEATURES,
                    (int) (features.word(sel >> 1) >>> 32 * (sel & 1)));
        }
        ringReset = features.has(Feature.RING_RESET);
    }

    @Override
    public int status() throws VirtioException {
        return read(MmioRegisters.STATUS);
    }

    @Override
    public void status(int value) throws VirtioException {
        write(MmioRegisters.STATUS, value);
        if (value == 0) {
            awaitZero(MmioRegisters.STATUS, "reset the device, its status is still %s");
            active = new int[0];
            ringReset = false;
        }
    }

    /** A device that takes its time to reset does so in its own time, up to a limit. */
    private void awaitZero(int offset, String what) throws VirtioException {
        long end = System.nanoTime() + RESET_MILLIS * 1_000_000;
        int value;
        while ((value = read(offset)) != 0) {
            if (System.nanoTime() - end > 0) {
                throw new VirtioException(
                        "mmio:%s did not %s after %d ms"
                                .formatted(
                                        name,
                                        what.formatted(DeviceStatus.name(value)),
                                        RESET_MILLIS));
            }
            LockSupport.parkNanos(50_000);
        }
    }

    @Override
    public int configGeneration() throws VirtioException {
        return read(MmioRegisters.CONFIG_GENERATION);
    }

    /**
     * One access for 1, 2 and 4 bytes at their natural alignment, two for 8; other lengths are read
     * byte by byte, as arrays of bytes are (4.2.2.2).
     */
    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        int width = width(offset, into.length);
        for (int at = 0; at < into.length; at += width) {
            int value = window.readConfig(offset + at, width);
            for (int i = 0; i < width; i++) {
                into[at + i] = (byte) (value >>> 8 * i);
            }
        }
        check();
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        int width = width(offset, from.length);
        for (int at = 0; at < from.length; at += width) {
            int value = 0;
            for (int i = 0; i < width; i++) {
                value |= (from[at + i] & 0xff) << 8 * i;
            }
            window.writeConfig(offset + at, width, value);
        }
    }

    private int width(int offset, int length) throws VirtioException {
        check();
        int bytes = window.configBytes();
        if (offset < 0 || length > bytes - offset) {
            throw new VirtioException(
                    "configuration bytes %d to %d of mmio:%s, which has %d"
                            .formatted(offset, (long) offset + length - 1, name, bytes));
        }
        boolean field = length == 2 || length == 4 || length == 8;
        int width = field ? Math.min(length, 4) : 1;
        return offset % width == 0 ? width : 1;
    }

    @Override
    public int maxQueueSize(int queue) throws VirtioException {
        write(MmioRegisters.QUEUE_SEL, queue);
        return read(MmioRegisters.QUEUE_SIZE_MAX);
    }

    @Override
    public MapToken mapToken(int queue) {
        return memory;
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        write(MmioRegisters.QUEUE_SEL, queue);
        if (read(MmioRegisters.QUEUE_READY) != 0) {
            throw new VirtioException(
                    "queue %d of mmio:%s is in use already".formatted(queue, name));
        }
        int max = read(MmioRegisters.QUEUE_SIZE_MAX);
        if (layout.size() <= 0 || layout.size() > max) {
            throw new VirtioException(
                    "queue %d of mmio:%s with %d descriptors, limits are 1 and %d"
                            .formatted(queue, name, layout.size(), max));
        }
        write(MmioRegisters.QUEUE_SIZE, layout.size());
        write(MmioRegisters.QUEUE_DESC_LOW, (int) layout.descriptorArea());
        write(MmioRegisters.QUEUE_DESC_HIGH, (int) (layout.descriptorArea() >>> 32));
        write(MmioRegisters.QUEUE_DRIVER_LOW, (int) layout.driverArea());
        write(MmioRegisters.QUEUE_DRIVER_HIGH, (int) (layout.driverArea() >>> 32));
        write(MmioRegisters.QUEUE_DEVICE_LOW, (int) layout.deviceArea());
        write(MmioRegisters.QUEUE_DEVICE_HIGH, (int) (layout.deviceArea() >>> 32));
        write(MmioRegisters.QUEUE_READY, 1);
        if (read(MmioRegisters.QUEUE_READY) != 1) {
            throw new VirtioException(
                    "mmio:%s refused queue %d with %d descriptors, of at most %d"
                            .formatted(name, queue, layout.size(), max));
        }
        int[] more = Arrays.copyOf(active, active.length + 1);
        more[active.length] = queue;
        active = more;
    }

    @Override
    public boolean stopQueue(int queue) throws VirtioException {
        if (!ringReset) {
            return false;
        }
        write(MmioRegisters.QUEUE_SEL, queue);
        write(MmioRegisters.QUEUE_RESET, 1);
        awaitZero(MmioRegisters.QUEUE_RESET, "reset queue " + queue);
        active = Arrays.stream(active).filter(other -> other != queue).toArray();
        return true;
    }

    @Override
    public void notifyQueue(int queue, int data) {
        if (!closed) {
            window.write(MmioRegisters.QUEUE_NOTIFY, data);
        }
    }

    @Override
    public void listen(Listener listener) {
        this.listener = listener;
        if (window.gone() != null) {
            gone();
        }
    }

    @Override
    public void interrupt() {
        int bits = pendingInterrupts();
        Listener told = listener;
        if (bits == 0 || told == null || closed || window.gone() != null) {
            return;
        }
        // Before the queues are looked at: an event after that raises the line again, where an
        // acknowledgement after it would wipe out an event that nobody has seen.
        window.write(MmioRegisters.INTERRUPT_ACK, bits);
        // An event of the other kind meanwhile has kept the line up, which an interrupt controller
        // that waits for edges does not see. A device that goes on like that harms itself.
        int seen = bits;
        for (int round = 0; round < ACKNOWLEDGEMENTS; round++) {
            int more = pendingInterrupts();
            if ((more & ~seen) == 0) {
                break;
            }
            window.write(MmioRegisters.INTERRUPT_ACK, more);
            bits |= more;
            seen = more;
        }
        try {
            if ((bits & MmioRegisters.INTERRUPT_USED) != 0) {
                // The register does not say which queue (4.2.3.4.1).
                for (int queue : active) {
                    told.queueUsed(queue);
                }
            }
            if ((bits & MmioRegisters.INTERRUPT_CONFIG) != 0) {
                told.configChanged();
            }
        } catch (RuntimeException e) {
            // The thread is the device's, which has no part in the driver's failure.
            LOG.log(Level.ERROR, "interrupt of mmio:" + name, e);
        }
    }

    private int pendingInterrupts() {
        return window.read(MmioRegisters.INTERRUPT_STATUS) & KNOWN_INTERRUPTS;
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
        told.gone(window.gone());
    }

    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        window.detach(this);
        memory.release();
    }
}
