package virtio.transport.vhostuser;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.linux.Epoll;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * The rings of one front-end, and the rules by which they start and stop.
 *
 * <p>A ring runs when features are accepted, its size, addresses and notifications are said, it is
 * enabled, and a first notification has come; until then {@link #epoll} waits for that. Used by the
 * session's thread, but for {@link #get} and {@link #deafen}.
 */
final class BackEndRings {
    private static final Logger LOG = System.getLogger(BackEndRings.class.getPackageName());

    private final String address;
    private final ExportedDevice device;
    private final BackEndMemory memory;
    private final Epoll epoll;
    private final Export export;
    private final BackEndRing[] rings;

    /** Whether the device accepts {@link #driverFeatures}. */
    private boolean accepted;

    private Features driverFeatures = Features.NONE;

    /**
     * All stopped.
     *
     * @param epoll waits for first notifications; says a ring by its index
     */
    BackEndRings(
            String address,
            ExportedDevice device,
            BackEndMemory memory,
            Epoll epoll,
            Export export) {
        this.address = address;
        this.device = device;
        this.memory = memory;
        this.epoll = epoll;
        this.export = export;
        rings = new BackEndRing[Math.min(device.queueCount(), VhostUser.MAX_VRINGS)];
        Arrays.setAll(rings, index -> new BackEndRing(index, device, address));
    }

    BackEndRing get(int queue) {
        return rings[queue];
    }

    int count() {
        return rings.length;
    }

    boolean isAccepted() {
        return accepted;
    }

    boolean isPacked() {
        return driverFeatures.has(Feature.RING_PACKED);
    }

    boolean isAnyRunning() {
        return Arrays.stream(rings).anyMatch(BackEndRing::isRunning);
    }

    /** The driver's choice; whether the device takes it. */
    boolean accept(Features features) throws VirtioException {
        if (!accepted || !features.equals(driverFeatures)) {
            if (isAnyRunning()) {
                throw new VirtioException(
                        "SET_FEATURES %s while a queue runs with %s"
                                .formatted(features, driverFeatures));
            }
            accepted = device.accept(features);
            driverFeatures = features;
            startAll();
        }
        return accepted;
    }

    void enableAll(boolean enabled) {
        for (BackEndRing ring : rings) {
            ring.enabled = enabled;
            update(ring);
        }
    }

    /** Stops what runs, to be started again by {@link #startAll}. */
    void stopAll() {
        for (BackEndRing ring : rings) {
            ring.stop();
        }
    }

    void startAll() {
        for (BackEndRing ring : rings) {
            update(ring);
        }
    }

    /** The front-end has shared more. */
    void grow(MemoryTable table) {
        for (BackEndRing ring : rings) {
            ring.grow(table);
        }
    }

    /** As at the beginning; the front-end's counters for interrupts stay. */
    void reset() {
        for (BackEndRing ring : rings) {
            ring.stop();
            unwatch(ring);
            ring.kick(null);
            ring.polled = false;
            ring.enabled = false;
            ring.kicked = false;
            ring.base = 0;
        }
        device.reset();
        accepted = false;
    }

    /** Ends what is held up by a front-end that fills its counters instead of reading them. */
    void deafen() {
        for (BackEndRing ring : rings) {
            ring.deafen();
        }
    }

    /** Stops all and resets the device; false when it does not let go of the memory. */
    boolean close() {
        boolean stopped = true;
        deafen();
        for (BackEndRing ring : rings) {
            try {
                ring.stop();
            } catch (IllegalStateException | InternalError e) {
                // The error: of an access to what was cut off, said a moment after it.
                stopped = false;
                LOG.log(
                        Level.ERROR,
                        "{0}: queue {1} does not stop, the front-end''s memory stays: {2}",
                        address,
                        ring.index,
                        e.getMessage());
            }
            ring.closeCounters();
        }
        if (stopped) {
            device.reset();
        }
        return stopped;
    }

    /** Does what a message about one ring asks; the reply that it always has, or null. */
    ByteBuffer handle(Message message) throws VirtioException {
        switch (message.request()) {
            case VhostUser.SET_VRING_NUM:
                setVringNum(stateRing(message), message.payload().getInt(4));
                return null;
            case VhostUser.SET_VRING_ADDR:
                setVringAddr(message);
                return null;
            case VhostUser.SET_VRING_BASE:
                BackEndRing based = stopped(stateRing(message), message);
                based.base = message.payload().getInt(4);
                return null;
            case VhostUser.GET_VRING_BASE:
                return getVringBase(stateRing(message));
            case VhostUser.SET_VRING_KICK:
                setVringKick(message);
                return null;
            case VhostUser.SET_VRING_CALL:
                counterRing(message).call(counter(message));
                return null;
            case VhostUser.SET_VRING_ERR:
                counterRing(message).err(counter(message));
                return null;
            case VhostUser.SET_VRING_ENABLE:
                BackEndRing ring = stateRing(message);
                ring.enabled = message.payload().getInt(4) != 0;
                update(ring);
                return null;
            default:
                throw new VirtioException(VhostUser.name(message.request()) + " is not known here");
        }
    }

    private BackEndRing stateRing(Message message) throws VirtioException {
        message.expect(VhostUser.STATE_BYTES);
        return ring(message, Integer.toUnsignedLong(message.payload().getInt(0)));
    }

    private BackEndRing counterRing(Message message) throws VirtioException {
        return ring(message, message.u64() & VhostUser.VRING_INDEX_MASK);
    }

    private BackEndRing ring(Message message, long queue) throws VirtioException {
        if (queue >= rings.length) {
            throw new VirtioException(
                    "%s of queue %d, there are %d"
                            .formatted(VhostUser.name(message.request()), queue, rings.length));
        }
        return rings[(int) queue];
    }

    private static BackEndRing stopped(BackEndRing ring, Message message) throws VirtioException {
        if (ring.isRunning()) {
            throw new VirtioException(
                    "%s of queue %d, which runs"
                            .formatted(VhostUser.name(message.request()), ring.index));
        }
        return ring;
    }

    private void setVringNum(BackEndRing ring, int size) throws VirtioException {
        if (size <= 0 || size > device.maxQueueSize()) {
            throw new VirtioException(
                    "queue %d with %s descriptors, limit is %d"
                            .formatted(
                                    ring.index,
                                    Integer.toUnsignedString(size),
                                    device.maxQueueSize()));
        }
        if (ring.isRunning() && ring.size != size) {
            throw new VirtioException("SET_VRING_NUM of queue " + ring.index + ", which runs");
        }
        ring.size = size;
        update(ring);
    }

    private void setVringAddr(Message message) throws VirtioException {
        message.expect(VhostUser.ADDR_BYTES);
        ByteBuffer payload = message.payload();
        BackEndRing ring = ring(message, Integer.toUnsignedLong(payload.getInt(0)));
        long descriptorArea = payload.getLong(8);
        long deviceArea = payload.getLong(16);
        long driverArea = payload.getLong(24);
        if (ring.addressed
                && ring.descriptorArea == descriptorArea
                && ring.deviceArea == deviceArea
                && ring.driverArea == driverArea) {
            return;
        }
        // Found to be outside later, it would be too late to say so in an answer.
        memory.table().guest(descriptorArea);
        memory.table().guest(driverArea);
        memory.table().guest(deviceArea);
        ring.stop();
        ring.descriptorArea = descriptorArea;
        ring.driverArea = driverArea;
        ring.deviceArea = deviceArea;
        ring.addressed = true;
        update(ring);
    }

    /** Stops a ring, completing what was taken from it. */
    private ByteBuffer getVringBase(BackEndRing ring) {
        ring.stop();
        unwatch(ring);
        ring.kicked = false;
        ring.polled = false;
        ring.kick(null);
        ring.call(null);
        return Message.state(ring.index, ring.base);
    }

    private void setVringKick(Message message) throws VirtioException {
        BackEndRing ring = counterRing(message);
        EventFd kick = counter(message);
        ring.stop();
        unwatch(ring);
        ring.kick(kick);
        ring.polled = kick == null;
        ring.kicked |= ring.polled;
        update(ring);
    }

    /** The counter that comes along, or null when the message says that none does. */
    private static EventFd counter(Message message) throws VirtioException {
        boolean none = (message.u64() & VhostUser.VRING_NOFD) != 0;
        message.expectFds(none ? 0 : 1);
        if (none) {
            return null;
        }
        if (message.request() == VhostUser.SET_VRING_CALL) {
            // Linux's virtio_uml cannot be interrupted by an eventfd.
            message.expectKind("anon_inode:[eventfd]", "socket:");
        } else {
            message.expectKind("anon_inode:[eventfd]");
        }
        return EventFd.of(message.fds().removeFirst());
    }

    /** A notification has come that starts a ring. */
    void kicked(int queue) {
        BackEndRing ring = rings[queue];
        if (ring.watched) {
            unwatch(ring);
            ring.kicked = true;
            update(ring);
        }
    }

    private void unwatch(BackEndRing ring) {
        if (ring.watched) {
            ring.watched = false;
            try {
                epoll.remove(ring.kick.file());
            } catch (LinuxException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    /** Starts or stops a ring as all that was said about it demands. */
    private void update(BackEndRing ring) {
        boolean ready = accepted && ring.isConfigured();
        if (ready && !ring.kicked && !ring.watched) {
            try {
                epoll.add(ring.kick.file(), FileDescriptor.IN, ring.index);
                ring.watched = true;
            } catch (LinuxException e) {
                export.queueBroken(
                        ring.index, "queue %d: %s".formatted(ring.index, e.getMessage()));
            }
        }
        boolean run = ready && ring.kicked && ring.enabled;
        if (run && !ring.isRunning()) {
            try {
                ring.start(memory.table(), isPacked(), memory.inflight(ring, isPacked()), export);
            } catch (VirtioException | RuntimeException e) {
                export.queueBroken(
                        ring.index, "queue %d: %s".formatted(ring.index, e.getMessage()));
            }
        } else if (!run && ring.isRunning()) {
            ring.stop();
        }
    }
}
