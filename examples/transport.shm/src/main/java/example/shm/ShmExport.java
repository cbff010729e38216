package example.shm;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.locks.LockSupport;

/**
 * The device end: one thread answers the driver's requests, looks at the doorbells and runs the
 * backend for all queues.
 *
 * <p>The driver can write everything in the file, so nothing that matters is read back from it: the
 * registers that the driver sees are copies of what is here.
 */
final class ShmExport implements Export, Runnable {
    /** What the transport itself offers: addresses are offsets, and queues are reset one by one. */
    private static final Features OWN = Features.of(Feature.ACCESS_PLATFORM, Feature.RING_RESET);

    /** What other transports have (virtio 6): there is no PCI, and doorbells carry no data. */
    private static final Features OTHERS =
            Features.of(
                    Feature.SR_IOV,
                    Feature.NOTIFICATION_DATA,
                    Feature.NOTIF_CONFIG_DATA,
                    Feature.ADMIN_VQ);

    private static final Logger LOG = System.getLogger(ShmExport.class.getPackageName());
    private static final long ALIVE_NANOS = 100_000_000;

    private final ShmFile file;
    private final ExportedDevice device;
    private final Runnable onClose;
    private final long longestPauseNanos;
    private final Features offered;
    private final Thread thread;
    private final boolean[] started;
    private final int[] doorbells;
    private final AtomicIntegerArray scheduled;
    private final AtomicIntegerArray interrupts;
    private volatile boolean closed;
    private volatile String driver;

    /** Whether DRIVER_OK is set; read by who interrupts. */
    private volatile boolean driverOk;

    private volatile boolean configStale;
    private volatile boolean configInterrupt;
    private volatile boolean broken;

    // The rest is the thread's.
    private final byte[] config;
    private int status;
    private int generation;
    private int configInterrupts;
    private Features accepted = Features.NONE;

    /** The attachment that is served, and the last one that was. */
    private int attachment;

    private Owner owner;
    private DriverRegion region;
    private int answered;

    /**
     * Makes the file; the device is served from {@link #start} on.
     *
     * @param onClose run once when nobody uses the device any more
     */
    ShmExport(
            String address,
            ExportedDevice device,
            long regionBytes,
            long longestPauseNanos,
            Runnable onClose)
            throws VirtioException {
        this.device = device;
        this.onClose = onClose;
        this.longestPauseNanos = longestPauseNanos;
        limit(address, "queues", device.queueCount(), ShmLayout.MAX_QUEUES);
        limit(address, "configuration bytes", device.configSize(), ShmLayout.MAX_CONFIG_BYTES);
        Features all = device.offered().andNot(OTHERS).or(OWN);
        offered = Features.ofWords(all.word(0), all.word(1));
        started = new boolean[device.queueCount()];
        doorbells = new int[device.queueCount()];
        scheduled = new AtomicIntegerArray(device.queueCount());
        interrupts = new AtomicIntegerArray(device.queueCount());
        config = new byte[device.configSize()];
        device.readConfig(0, config);
        file =
                ShmFile.create(
                        ShmFile.path(address),
                        regionBytes,
                        new ShmFile.Identity(
                                device.deviceType(),
                                device.queueCount(),
                                device.maxQueueSize(),
                                offered,
                                config));
        thread =
                Thread.ofPlatform()
                        .daemon()
                        .name("virtio-" + file.name + " device")
                        .unstarted(this);
    }

    void start() {
        thread.start();
    }

    private static void limit(String address, String what, int value, int most)
            throws VirtioException {
        if (value > most) {
            throw new VirtioException(
                    "shm:%s cannot carry a device with %d %s, limit is %d"
                            .formatted(address, value, what, most));
        }
    }

    /** As {@code virtio-blk, 1 queue}. */
    String description() {
        return "virtio-%s in a file, %d queue%s"
                .formatted(
                        DeviceType.name(device.deviceType()),
                        started.length,
                        started.length == 1 ? "" : "s");
    }

    @Override
    public void run() {
        Pause pause = new Pause(longestPauseNanos);
        long looked = System.nanoTime();
        try {
            while (!closed) {
                publish();
                boolean worked = control();
                worked |= serve();
                if (System.nanoTime() - looked > ALIVE_NANOS) {
                    looked = System.nanoTime();
                    file.checkSize();
                    if (region != null && !owner.isAlive()) {
                        LOG.log(Level.WARNING, "{0} lost its driver, {1}", file.name, owner);
                        letGo();
                    }
                }
                if (worked) {
                    pause.worked();
                } else {
                    pause.idle();
                }
            }
        } catch (VirtioException | RuntimeException | InternalError e) {
            LOG.log(Level.ERROR, file.name + " is no longer served", e);
        } finally {
            withdraw();
        }
    }

    /** Takes over what others have reported. */
    private void publish() {
        if (broken) {
            broken = false;
            status |= DeviceStatus.DEVICE_NEEDS_RESET;
            file.set(ShmLayout.STATUS, status);
            configInterrupt = true;
        }
        if (configStale) {
            // Before it is read: a change that comes meanwhile is another one.
            configStale = false;
            publishConfig();
        }
        if (configInterrupt) {
            configInterrupt = false;
            file.set(ShmLayout.CONFIG_INTERRUPT, ++configInterrupts);
        }
    }

    private void publishConfig() {
        device.readConfig(0, config);
        file.set(ShmLayout.CONFIG_GENERATION, ++generation);
        file.write(ShmLayout.CONFIG, config);
        file.set(ShmLayout.CONFIG_GENERATION, ++generation);
    }

    /** Whether there was a driver that came or went, or a request. */
    private boolean control() throws VirtioException {
        if (region == null) {
            int next = file.get(ShmLayout.ATTACHMENT);
            if (next == attachment) {
                return false;
            }
            attach(next);
            return true;
        }
        if (file.get(ShmLayout.LEFT) == attachment) {
            letGo();
            return true;
        }
        int request = file.get(ShmLayout.REQUEST);
        if (request == answered) {
            return false;
        }
        String refusal;
        try {
            refusal = perform(file.get(ShmLayout.OPERATION), file.get(ShmLayout.ARGUMENT));
        } catch (VirtioException | IllegalStateException e) {
            refusal = e.getMessage();
        }
        if (refusal != null) {
            byte[] text = refusal.getBytes(StandardCharsets.UTF_8);
            text = Arrays.copyOf(text, Math.min(text.length, ShmLayout.MAX_REASON_BYTES));
            file.write(ShmLayout.REASON, text);
            file.set(ShmLayout.REASON_BYTES, text.length);
        }
        file.set(ShmLayout.ANSWER, refusal == null ? 0 : 1);
        answered = request;
        file.set(ShmLayout.ANSWERED, answered);
        return true;
    }

    private void attach(int next) throws VirtioException {
        attachment = next;
        int number = file.get(ShmLayout.REGION);
        if (number < 0 || number >= ShmLayout.REGIONS) {
            LOG.log(
                    Level.WARNING,
                    "{0} refused a driver with region {1}, limits are 0 and {2}",
                    file.name,
                    number,
                    ShmLayout.REGIONS - 1);
            file.set(ShmLayout.ENDED, attachment);
            return;
        }
        owner = file.owner(ShmLayout.DRIVER_OWNER);
        region = DriverRegion.map(file, number);
        driver = "driven by " + owner;
    }

    /** The device forgets the driver, as if the driver's machine had been switched off. */
    private void letGo() {
        reset();
        driver = null;
        region.close();
        region = null;
        answered = file.get(ShmLayout.REQUEST);
        file.set(ShmLayout.ANSWERED, answered);
        file.set(ShmLayout.ENDED, attachment);
    }

    /** Does what the driver requests; the reason when it cannot be done. */
    private String perform(int operation, int argument) throws VirtioException {
        return switch (operation) {
            case ShmLayout.SET_STATUS -> {
                setStatus(argument & 0xff);
                yield null;
            }
            case ShmLayout.START_QUEUE -> start(argument);
            case ShmLayout.STOP_QUEUE -> stop(argument);
            case ShmLayout.WRITE_CONFIG -> writeConfig(argument, file.get(ShmLayout.QUEUE_SIZE));
            default -> "operation %d is unknown".formatted(operation);
        };
    }

    private void setStatus(int value) {
        if (value == 0) {
            reset();
            return;
        }
        // Bits only come, until a reset; NEEDS_RESET is the device's to set.
        int add = value & ~DeviceStatus.DEVICE_NEEDS_RESET;
        if ((add & ~status & DeviceStatus.FEATURES_OK) != 0 && !accept()) {
            add &= ~DeviceStatus.FEATURES_OK;
        }
        if (((add | status) & DeviceStatus.FEATURES_OK) == 0) {
            add &= ~DeviceStatus.DRIVER_OK;
        }
        boolean goes = (add & ~status & DeviceStatus.DRIVER_OK) != 0;
        status |= add;
        file.set(ShmLayout.STATUS, status);
        if (goes) {
            // Buffers may be waiting whose notification came too early to be heeded.
            for (int queue = 0; queue < started.length; queue++) {
                scheduled.set(queue, started[queue] ? 1 : 0);
            }
            driverOk = true;
        }
    }

    private boolean accept() {
        Features chosen =
                Features.ofWords(
                        file.getLong(ShmLayout.DRIVER_FEATURES),
                        file.getLong(ShmLayout.DRIVER_FEATURES + 8));
        // The device is asked about what it offered itself.
        if (!chosen.andNot(offered).isEmpty() || !device.accept(chosen.and(device.offered()))) {
            return false;
        }
        accepted = chosen;
        return true;
    }

    private void reset() {
        driverOk = false;
        device.reset();
        Arrays.fill(started, false);
        accepted = Features.NONE;
        broken = false;
        configInterrupt = false;
        status = 0;
        file.set(ShmLayout.STATUS, 0);
    }

    private String start(int queue) throws VirtioException {
        if (queue < 0 || queue >= started.length) {
            return "there is no queue %d, limit is %d".formatted(queue, started.length - 1);
        }
        if (started[queue]) {
            return "it is in use already";
        }
        if ((status & DeviceStatus.FEATURES_OK) == 0) {
            return "FEATURES_OK is not set";
        }
        int size = file.get(ShmLayout.QUEUE_SIZE);
        if (size <= 0 || size > device.maxQueueSize()) {
            return "size %d, limits are 1 and %d".formatted(size, device.maxQueueSize());
        }
        QueueLayout layout =
                new QueueLayout(
                        size,
                        file.getLong(ShmLayout.DESCRIPTOR_AREA),
                        file.getLong(ShmLayout.DRIVER_AREA),
                        file.getLong(ShmLayout.DEVICE_AREA));
        device.startQueue(queue, layout, region, this);
        started[queue] = true;
        doorbells[queue] = file.get(doorbell(queue));
        scheduled.set(queue, 1);
        return null;
    }

    private String stop(int queue) {
        if (queue < 0 || queue >= started.length || !started[queue]) {
            return "it is not started";
        }
        if (!accepted.has(Feature.RING_RESET)) {
            return "RING_RESET was not negotiated";
        }
        device.stopQueue(queue);
        started[queue] = false;
        return null;
    }

    private String writeConfig(int offset, int length) {
        if (offset < 0 || length < 0 || length > config.length - (long) offset) {
            return "%d bytes at %d, of %d".formatted(length, offset, config.length);
        }
        byte[] bytes = new byte[length];
        file.read(ShmLayout.PAYLOAD, bytes);
        device.writeConfig(offset, bytes);
        publishConfig();
        return null;
    }

    private static int doorbell(int queue) {
        return ShmLayout.DOORBELLS + ShmLayout.LINE_BYTES * queue;
    }

    /** Whether a queue was served. */
    private boolean serve() throws VirtioException {
        if (!driverOk) {
            return false;
        }
        boolean any = false;
        for (int queue = 0; queue < started.length; queue++) {
            int rung = started[queue] ? file.get(doorbell(queue)) : 0;
            if (started[queue] && (rung != doorbells[queue] || scheduled.get(queue) != 0)) {
                // Before it is served: what comes meanwhile is another one.
                doorbells[queue] = rung;
                scheduled.set(queue, 0);
                any = true;
                serve(queue);
            }
        }
        return any;
    }

    private void serve(int queue) throws VirtioException {
        try {
            device.queueNotified(queue);
        } catch (RuntimeException | Error e) {
            // The end of the file may be behind it, and then the end of the device.
            file.checkSize();
            LOG.log(Level.ERROR, file.name + " queue " + queue, e);
            queueBroken(queue, "its device failed: " + e);
        }
    }

    @Override
    public String driver() {
        return driver;
    }

    /** Nothing is notified of before DRIVER_OK, nor after a reset (virtio 2.1.2, 2.4.2). */
    @Override
    public void interrupt(int queue) {
        if (driverOk) {
            try {
                file.set(
                        ShmLayout.INTERRUPTS + ShmLayout.LINE_BYTES * queue,
                        interrupts.incrementAndGet(queue));
            } catch (IllegalStateException | InternalError e) {
                // Closed just now, or cut off: the device's thread sees to it.
            }
        }
    }

    @Override
    public void configChanged() {
        configInterrupt |= driverOk;
        configStale = true;
        LockSupport.unpark(thread);
    }

    @Override
    public void schedule(int queue) {
        scheduled.set(queue, 1);
        LockSupport.unpark(thread);
    }

    @Override
    public void queueBroken(int queue, String reason) {
        LOG.log(Level.WARNING, "{0} queue {1} is broken: {2}", file.name, queue, reason);
        broken |= driverOk;
        LockSupport.unpark(thread);
    }

    /** On the thread, at its end. */
    private void withdraw() {
        closed = true;
        boolean quiet = false;
        try {
            driverOk = false;
            device.reset();
            quiet = true;
        } catch (RuntimeException | InternalError e) {
            LOG.log(Level.ERROR, file.name + " is not reset, its memory stays mapped", e);
        }
        if (file.isWhole()) {
            file.set(ShmLayout.WITHDRAWN, 1);
            file.set(ShmLayout.ENDED, attachment);
        }
        driver = null;
        file.delete();
        if (region != null && quiet) {
            region.close();
        }
        file.close();
        onClose.run();
    }

    @Override
    public void close() {
        closed = true;
        LockSupport.unpark(thread);
        boolean interrupted = false;
        while (thread != Thread.currentThread() && thread.isAlive()) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
