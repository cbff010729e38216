package example.shm;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicIntegerArray;

/**
 * The driver end: what the device says is read from its registers, what it shall do is requested
 * and waited for, and a thread looks for its interrupts.
 */
final class ShmTransport implements Transport, Runnable {
    private static final Logger LOG = System.getLogger(ShmTransport.class.getPackageName());

    /** How long the device may take to answer a request; a reset waits for what is in flight. */
    private static final long ANSWER_MILLIS = 10_000;

    /** How long its last driver may take to be let go. */
    private static final long LEAVE_MILLIS = 2_000;

    /** How often to look whether the other process lives. */
    private static final long ALIVE_NANOS = 100_000_000;

    /** A queue that is started, and the last interrupt of it that was seen. */
    private static final class Active {
        final int index;
        int seen;

        Active(int index, int seen) {
            this.index = index;
            this.seen = seen;
        }
    }

    private final ShmFile file;
    private final ShmMemory memory;
    private final int attachment;
    private final long longestPauseNanos;
    private final AtomicIntegerArray doorbells;
    private int requests;
    private boolean ringReset;

    /** A new array at each change. */
    private volatile Active[] active = {};

    private volatile int configSeen;
    private volatile Listener listener;
    private volatile boolean closed;
    private volatile VirtioException gone;
    private boolean goneReported;

    /**
     * Takes the device, exclusively.
     *
     * @throws VirtioException when another driver has it, or the file makes no sense
     */
    static ShmTransport open(ShmFile file, long bounceBytes, long longestPauseNanos)
            throws VirtioException {
        int region = take(file);
        ShmMemory memory = null;
        try {
            memory = new ShmMemory(file, region, bounceBytes);
            return new ShmTransport(file, memory, longestPauseNanos);
        } catch (VirtioException | RuntimeException e) {
            file.set(ShmLayout.LEFT, file.get(ShmLayout.ATTACHMENT));
            file.setLong(ShmLayout.REGION_OWNERS + 16 * region, 0);
            if (memory != null) {
                memory.release();
            }
            throw e;
        }
    }

    /** Waits for a driver that has left, or died, to be let go. */
    private static int take(ShmFile file) throws VirtioException {
        Pause pause = new Pause(1_000_000);
        long end = System.nanoTime() + LEAVE_MILLIS * 1_000_000;
        int region;
        while ((region = file.locked(() -> tryTake(file))) < 0) {
            if (System.nanoTime() - end > 0) {
                throw new VirtioException(
                        "%s has not let go of its last driver after %d ms"
                                .formatted(file.name, LEAVE_MILLIS));
            }
            pause.idle();
        }
        return region;
    }

    /** The region that the driver has from now on; -1 when its predecessor is to be waited for. */
    private static int tryTake(ShmFile file) throws VirtioException {
        VirtioException reason = deviceGone(file);
        if (reason != null) {
            throw reason;
        }
        int last = file.get(ShmLayout.ATTACHMENT);
        if (last != file.get(ShmLayout.ENDED)) {
            Owner driver = file.owner(ShmLayout.DRIVER_OWNER);
            if (file.get(ShmLayout.LEFT) != last && driver.isAlive()) {
                throw new VirtioException(
                        "%s is driven by %s: detach it there first".formatted(file.name, driver));
            }
            return -1;
        }
        for (int region = 0; region < ShmLayout.REGIONS; region++) {
            int owner = ShmLayout.REGION_OWNERS + 16 * region;
            if (!file.owner(owner).isAlive()) {
                file.setOwner(owner, Owner.self());
                file.setOwner(ShmLayout.DRIVER_OWNER, Owner.self());
                file.set(ShmLayout.REGION, region);
                file.set(ShmLayout.REQUEST, file.get(ShmLayout.ANSWERED));
                file.set(ShmLayout.ATTACHMENT, last + 1);
                return region;
            }
        }
        throw new VirtioException(
                "all %d regions of %s hold memory that consumers of earlier drivers still have: close"
                                .formatted(ShmLayout.REGIONS, file.name)
                        + " those consumers, or use another path");
    }

    /** Why the device cannot be reached any more; null when it can. */
    private static VirtioException deviceGone(ShmFile file) throws VirtioException {
        if (file.get(ShmLayout.WITHDRAWN) != 0) {
            return new VirtioException("%s was withdrawn by its exporter".formatted(file.name));
        }
        Owner owner = file.owner(ShmLayout.DEVICE_OWNER);
        if (!owner.isAlive()) {
            return new VirtioException(
                    "%s is left over from %s, which ended: export the device again"
                            .formatted(file.name, owner));
        }
        file.checkSize();
        return null;
    }

    private ShmTransport(ShmFile file, ShmMemory memory, long longestPauseNanos)
            throws VirtioException {
        this.file = file;
        this.memory = memory;
        attachment = file.get(ShmLayout.ATTACHMENT);
        this.longestPauseNanos = longestPauseNanos;
        requests = file.get(ShmLayout.ANSWERED);
        configSeen = file.get(ShmLayout.CONFIG_INTERRUPT);
        doorbells = new AtomicIntegerArray(file.queueCount());
        for (int queue = 0; queue < file.queueCount(); queue++) {
            doorbells.set(queue, file.get(doorbell(queue)));
        }
        // Answered once the device has noticed its driver, so that it says that it has one.
        status(0);
        memory.hold();
        Thread.ofPlatform().daemon().name("virtio-" + file.name + " driver").start(this);
    }

    private static int doorbell(int queue) {
        return ShmLayout.DOORBELLS + ShmLayout.LINE_BYTES * queue;
    }

    private static int interrupt(int queue) {
        return ShmLayout.INTERRUPTS + ShmLayout.LINE_BYTES * queue;
    }

    private void check() throws VirtioException {
        if (closed) {
            throw new VirtioException("%s is closed".formatted(file.name));
        }
        VirtioException reason = gone;
        if (reason != null) {
            throw new VirtioException(reason.getMessage(), reason);
        }
    }

    @Override
    public int deviceType() throws VirtioException {
        check();
        return file.deviceType();
    }

    @Override
    public Features offered() throws VirtioException {
        check();
        try {
            return Features.ofWords(
                    file.getLong(ShmLayout.DEVICE_FEATURES),
                    file.getLong(ShmLayout.DEVICE_FEATURES + 8));
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
    }

    @Override
    public void accept(Features features) throws VirtioException {
        check();
        int limit = 64 * ShmLayout.FEATURE_WORDS;
        int beyond = features.stream().filter(bit -> bit >= limit).findFirst().orElse(-1);
        if (beyond >= 0) {
            throw new VirtioException(
                    "%s cannot carry feature bit %d, limit is %d"
                            .formatted(file.name, beyond, limit - 1));
        }
        try {
            for (int word = 0; word < ShmLayout.FEATURE_WORDS; word++) {
                file.setLong(ShmLayout.DRIVER_FEATURES + 8 * word, features.word(word));
            }
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
        ringReset = features.has(Feature.RING_RESET);
    }

    @Override
    public int status() throws VirtioException {
        check();
        try {
            return file.get(ShmLayout.STATUS) & 0xff;
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
    }

    @Override
    public void status(int value) throws VirtioException {
        request(value == 0 ? "reset" : "set its status", ShmLayout.SET_STATUS, value, null);
        if (value == 0) {
            active = new Active[0];
            ringReset = false;
            // What was notified of before is nobody's business any more.
            configSeen = file.get(ShmLayout.CONFIG_INTERRUPT);
        }
    }

    /** Has the device do something, and returns when it has. */
    private void request(String what, int operation, int argument, QueueLayout layout)
            throws VirtioException {
        check();
        try {
            if (layout != null) {
                file.set(ShmLayout.QUEUE_SIZE, layout.size());
                file.setLong(ShmLayout.DESCRIPTOR_AREA, layout.descriptorArea());
                file.setLong(ShmLayout.DRIVER_AREA, layout.driverArea());
                file.setLong(ShmLayout.DEVICE_AREA, layout.deviceArea());
            }
            file.set(ShmLayout.OPERATION, operation);
            file.set(ShmLayout.ARGUMENT, argument);
            file.set(ShmLayout.REQUEST, ++requests);
            awaitAnswer(what);
            if (file.get(ShmLayout.ANSWER) != 0) {
                throw new VirtioException(
                        "%s refused to %s: %s".formatted(file.name, what, reason()));
            }
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
    }

    private void awaitAnswer(String what) throws VirtioException {
        Pause pause = new Pause(longestPauseNanos);
        long end = System.nanoTime() + ANSWER_MILLIS * 1_000_000;
        while (file.get(ShmLayout.ANSWERED) != requests) {
            check();
            if (System.nanoTime() - end > 0) {
                throw new VirtioException(
                        "%s did not %s after %d ms".formatted(file.name, what, ANSWER_MILLIS));
            }
            pause.idle();
        }
    }

    /** Text of the other end: bounded, and no more than text. */
    private String reason() {
        int length = file.get(ShmLayout.REASON_BYTES);
        byte[] text = new byte[Math.clamp(length, 0, ShmLayout.MAX_REASON_BYTES)];
        file.read(ShmLayout.REASON, text);
        return new String(text, StandardCharsets.UTF_8).replaceAll("\\p{Cntrl}", " ");
    }

    @Override
    public int configGeneration() throws VirtioException {
        Pause pause = new Pause(longestPauseNanos);
        long end = System.nanoTime() + ANSWER_MILLIS * 1_000_000;
        try {
            while (true) {
                check();
                int generation = file.get(ShmLayout.CONFIG_GENERATION);
                if ((generation & 1) == 0) {
                    return generation;
                }
                if (System.nanoTime() - end > 0) {
                    throw new VirtioException(
                            "%s has been changing its configuration for %d ms"
                                    .formatted(file.name, ANSWER_MILLIS));
                }
                pause.idle();
            }
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
    }

    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        checkConfig(offset, into.length);
        try {
            file.read(ShmLayout.CONFIG + offset, into);
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        checkConfig(offset, from.length);
        try {
            file.write(ShmLayout.PAYLOAD, from);
            file.set(ShmLayout.QUEUE_SIZE, from.length);
        } catch (InternalError e) {
            throw file.cutOff(e);
        }
        request("write its configuration", ShmLayout.WRITE_CONFIG, offset, null);
    }

    private void checkConfig(int offset, int length) throws VirtioException {
        check();
        if (offset < 0 || length > file.configBytes() - offset) {
            throw new VirtioException(
                    "configuration bytes %d to %d of %s, which has %d"
                            .formatted(
                                    offset,
                                    (long) offset + length - 1,
                                    file.name,
                                    file.configBytes()));
        }
    }

    @Override
    public int maxQueueSize(int queue) throws VirtioException {
        check();
        return queue >= 0 && queue < file.queueCount() ? file.maxQueueSize() : 0;
    }

    @Override
    public MapToken mapToken(int queue) {
        return memory;
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        int most = maxQueueSize(queue);
        if (layout.size() <= 0 || layout.size() > most) {
            throw new VirtioException(
                    "queue %d of %s with %d descriptors, limits are 1 and %d"
                            .formatted(queue, file.name, layout.size(), most));
        }
        if (Arrays.stream(active).anyMatch(other -> other.index == queue)) {
            throw new VirtioException(
                    "queue %d of %s is in use already".formatted(queue, file.name));
        }
        Active[] more = Arrays.copyOf(active, active.length + 1);
        more[active.length] = new Active(queue, file.get(interrupt(queue)));
        request("start queue " + queue, ShmLayout.START_QUEUE, queue, layout);
        active = more;
    }

    @Override
    public boolean stopQueue(int queue) throws VirtioException {
        if (!ringReset) {
            return false;
        }
        request("reset queue " + queue, ShmLayout.STOP_QUEUE, queue, null);
        active = Arrays.stream(active).filter(other -> other.index != queue).toArray(Active[]::new);
        return true;
    }

    /** What is written does not matter, only that it is another number than before. */
    @Override
    public void notifyQueue(int queue, int data) {
        if (closed || gone != null) {
            return;
        }
        try {
            file.set(doorbell(queue), doorbells.incrementAndGet(queue));
        } catch (IllegalStateException | InternalError e) {
            // Closed just now, or cut off: the thread that looks for interrupts reports it. Where
            // the JVM is late, the error reaches the caller, as it does whoever touches a buffer.
        }
    }

    @Override
    public void listen(Listener listener) {
        this.listener = listener;
        reportGone();
    }

    /** Looks for interrupts until the transport is closed or the device is gone. */
    @Override
    public void run() {
        Pause pause = new Pause(longestPauseNanos);
        long looked = System.nanoTime();
        try {
            while (!closed && gone == null) {
                if (look()) {
                    pause.worked();
                    continue;
                }
                if (file.get(ShmLayout.ENDED) == attachment) {
                    gone = deviceGone(file);
                    if (gone == null) {
                        gone = new VirtioException("%s let its driver go".formatted(file.name));
                    }
                } else if (System.nanoTime() - looked > ALIVE_NANOS) {
                    looked = System.nanoTime();
                    gone = deviceGone(file);
                }
                pause.idle();
            }
        } catch (InternalError e) {
            gone = file.cutOff(e);
        } catch (VirtioException e) {
            gone = e;
        } finally {
            reportGone();
            memory.release();
        }
    }

    /** Whether there was an interrupt. */
    private boolean look() {
        boolean any = false;
        for (Active queue : active) {
            int now = file.get(interrupt(queue.index));
            if (now != queue.seen) {
                // Seen before it is handled: what comes meanwhile is another one.
                queue.seen = now;
                any = true;
                tell(queue.index);
            }
        }
        int now = file.get(ShmLayout.CONFIG_INTERRUPT);
        if (now != configSeen) {
            configSeen = now;
            any = true;
            tell(DEVICE);
        }
        return any;
    }

    private void tell(int queue) {
        Listener told = listener;
        if (told == null || closed) {
            return;
        }
        try {
            if (queue == DEVICE) {
                told.configChanged();
            } else {
                told.queueUsed(queue);
            }
        } catch (RuntimeException e) {
            LOG.log(Level.ERROR, "interrupt of " + file.name, e);
        }
    }

    private void reportGone() {
        Listener told = listener;
        synchronized (this) {
            if (gone == null || told == null || goneReported || closed) {
                return;
            }
            goneReported = true;
        }
        told.gone(gone);
    }

    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        if (file.isWhole()) {
            file.set(ShmLayout.LEFT, attachment);
        }
        memory.release();
    }
}
