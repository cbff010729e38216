package virtio.ring;

import virtio.api.ConfigSpace;
import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.VirtioDevice;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;
import virtio.api.status.QueueSnapshot;
import virtio.api.transport.Transport;
import virtio.ring.queue.DriverEnd;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.concurrent.locks.LockSupport;

/** A device behind one transport, from the end of its negotiation to the reset after a freeze. */
final class LiveDevice implements VirtioDevice, Transport.Listener {
    /** What it reports, from any thread. */
    interface Events {
        /** The configuration may have changed, or the device needs a reset. */
        void configChanged();

        /** The device is of no use any more. */
        void lost(LiveDevice device, String reason);

        /** What the operator set. */
        long swapTimeoutMillis();
    }

    /** How long a callback that runs while the device is let go may take to return. */
    static final long CALLBACK_MILLIS = 1_000;

    /** More queues than any device type has; what a driver asks for beyond is a mistake. */
    private static final int MAX_QUEUES = 65_536;

    private static final Logger LOG = System.getLogger(LiveDevice.class.getPackageName());

    private final String name;
    private final OpenTransport transport;
    private final Negotiation negotiation;
    private final DeviceMapping mapping;
    private final Events events;
    private volatile AtomicReferenceArray<DriverEnd> queues = new AtomicReferenceArray<>(0);

    /** Threads in a queue's callback, so that its ring is not freed below them. */
    private volatile AtomicIntegerArray inside = new AtomicIntegerArray(0);

    private volatile boolean found;
    private volatile boolean ready;
    private volatile boolean shut;
    private volatile boolean complained;

    private LiveDevice(String name, OpenTransport transport, Negotiation negotiation, Events events)
            throws VirtioException {
        this.name = name;
        this.transport = transport;
        this.negotiation = negotiation;
        this.events = events;
        mapping = transport.mapping(Transport.DEVICE);
        transport.listen(this);
    }

    /**
     * Negotiates with the device behind a transport.
     *
     * @throws VirtioException when that fails; the device is reset as far as it listens
     */
    static LiveDevice negotiate(
            String name, OpenTransport transport, Services.UsableDriver driver, Events events)
            throws VirtioException {
        Negotiation negotiation = Negotiation.run(name, transport, driver.driver());
        try {
            return new LiveDevice(name, transport, negotiation, events);
        } catch (VirtioException e) {
            Negotiation.giveUp(transport, e);
            throw e;
        }
    }

    OpenTransport transport() {
        return transport;
    }

    Negotiation negotiation() {
        return negotiation;
    }

    /** Whether the driver called {@link #ready}. */
    boolean isReady() {
        return ready;
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public int deviceType() {
        return negotiation.deviceType();
    }

    @Override
    public Features features() {
        return negotiation.accepted();
    }

    @Override
    public ConfigSpace config() {
        return negotiation.config();
    }

    @Override
    public DeviceMapping mapping() {
        return mapping;
    }

    @Override
    public Virtqueue[] findQueues(QueueRequest... wanted) throws VirtioException {
        if (found) {
            throw new IllegalStateException(name + ": findQueues was called before");
        }
        if (wanted.length > MAX_QUEUES) {
            throw new IllegalArgumentException(
                    "%s: %d queues, the most is %d".formatted(name, wanted.length, MAX_QUEUES));
        }
        checkLive("findQueues");
        found = true;
        inside = new AtomicIntegerArray(wanted.length);
        queues = new AtomicReferenceArray<>(wanted.length);
        Virtqueue[] made = new Virtqueue[wanted.length];
        for (int index = 0; index < wanted.length; index++) {
            if (wanted[index] != null) {
                made[index] = make(index, wanted[index]);
            }
        }
        return made;
    }

    private DriverEnd make(int index, QueueRequest request) throws VirtioException {
        int max = transport.maxQueueSize(index);
        if (max <= 0) {
            throw new VirtioException(
                    "%s (%s): has no queue %d, which %s needs"
                            .formatted(name, transport.address(), index, request.name()));
        }
        int limit = Math.min(Math.min(max, request.maxSize()), 32_768);
        boolean packed = negotiation.accepted().has(Feature.RING_PACKED);
        int size = packed ? limit : Integer.highestOneBit(limit);
        DriverEnd queue =
                DriverEnd.create(
                        index,
                        request,
                        size,
                        negotiation.accepted(),
                        transport.mapping(index),
                        transport,
                        this::broken);
        // Before it is started, so that its ring is given back should the start fail.
        queues.set(index, queue);
        transport.startQueue(index, queue.layout());
        return queue;
    }

    @Override
    public void ready() throws VirtioException {
        checkLive("ready");
        transport.addStatus(DeviceStatus.DRIVER_OK);
        ready = true;
    }

    @Override
    public void needsReset(String reason) {
        events.lost(this, reason);
    }

    @Override
    public long swapTimeoutMillis() {
        return events.swapTimeoutMillis();
    }

    @Override
    public void queueUsed(int index) {
        AtomicReferenceArray<DriverEnd> all = queues;
        if (index < 0 || index >= all.length()) {
            return;
        }
        DriverEnd queue = all.get(index);
        if (queue == null) {
            return;
        }
        AtomicIntegerArray count = inside;
        count.incrementAndGet(index);
        try {
            if (!shut) {
                queue.interrupted();
            }
        } catch (RuntimeException | Error e) {
            complain(queue, e);
        } finally {
            count.decrementAndGet(index);
        }
    }

    @Override
    public void configChanged() {
        events.configChanged();
    }

    @Override
    public void gone(VirtioException reason) {
        events.lost(this, reason.getMessage());
    }

    private void broken(DriverEnd queue, String reason) {
        events.lost(this, "queue %s is broken: %s".formatted(queue.name(), reason));
    }

    private void complain(DriverEnd queue, Throwable thrown) {
        if (!complained) {
            complained = true;
            LOG.log(
                    Level.WARNING,
                    "{0}: the callback of queue {1} threw {2}",
                    name,
                    queue.name(),
                    thrown.toString());
        }
    }

    private void checkLive(String what) throws VirtioException {
        if (shut) {
            throw new VirtioException(
                    "%s (%s): %s was called after the device was let go"
                            .formatted(name, transport.address(), what));
        }
    }

    /**
     * Resets the device, then gives back what is mapped, with the operations it was mapped by. One
     * that cannot be reset is closed first, so that it does not write to what is given back.
     */
    void reset() {
        shut();
        try {
            transport.reset();
        } catch (VirtioException e) {
            LOG.log(Level.DEBUG, e.getMessage());
            transport.close();
        }
        closeQueues();
    }

    /** As {@link #reset}, after FAILED: the driver could not do with the device. */
    void giveUp(VirtioException why) {
        shut();
        if (!Negotiation.giveUp(transport, why)) {
            transport.close();
        }
        closeQueues();
    }

    /** No callback starts any more, and no configuration access. */
    private void shut() {
        shut = true;
        negotiation.config().end();
    }

    /** A ring whose callback does not return is kept, because the callback may still read it. */
    private void closeQueues() {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(CALLBACK_MILLIS);
        for (int index = 0; index < queues.length(); index++) {
            DriverEnd queue = queues.get(index);
            if (queue == null) {
                continue;
            }
            while (inside.get(index) != 0 && System.nanoTime() - end < 0) {
                LockSupport.parkNanos(50_000);
            }
            if (inside.get(index) != 0) {
                LOG.log(
                        Level.ERROR,
                        "{0}: a callback of queue {1} did not return within {2} ms, its ring is"
                                + " not given back",
                        name,
                        queue.name(),
                        CALLBACK_MILLIS);
                continue;
            }
            try {
                queue.close();
            } catch (RuntimeException | Error e) {
                LOG.log(
                        Level.WARNING,
                        "{0}: giving queue {1} back threw {2}",
                        name,
                        queue.name(),
                        e.toString());
            }
        }
    }

    /** The queues at this moment. */
    List<QueueSnapshot> snapshot() {
        AtomicReferenceArray<DriverEnd> all = queues;
        List<QueueSnapshot> snapshots = new ArrayList<>(all.length());
        for (int index = 0; index < all.length(); index++) {
            DriverEnd queue = all.get(index);
            if (queue != null) {
                snapshots.add(queue.snapshot());
            }
        }
        return snapshots;
    }

    /** Lets users of the queues see at once that the device is lost. */
    void fail(String reason) {
        AtomicReferenceArray<DriverEnd> all = queues;
        for (int index = 0; index < all.length(); index++) {
            DriverEnd queue = all.get(index);
            if (queue != null) {
                queue.fail(reason);
            }
        }
    }
}
