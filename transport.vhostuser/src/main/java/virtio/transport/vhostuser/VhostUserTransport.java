package virtio.transport.vhostuser;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The driver end of a device that a vhost-user back-end serves.
 *
 * <p>The protocol has no device type, no queue sizes and, with many back-ends, neither status nor
 * reset: what is missing is stood in for here.
 */
final class VhostUserTransport implements Transport {
    private static final Logger LOG = System.getLogger(VhostUserTransport.class.getPackageName());

    /** As many as the tightest back-end known takes (QEMU's libvhost-user). */
    private static final int MAX_QUEUE_SIZE = 1024;

    /** Not carried: no IOTLB messages, no data with a kick, no functions, no administration. */
    private static final Features NOT_CARRIED =
            Features.of(
                    VhostUser.F_LOG_ALL,
                    VhostUser.F_PROTOCOL_FEATURES,
                    Feature.ACCESS_PLATFORM,
                    Feature.SR_IOV,
                    Feature.NOTIFICATION_DATA,
                    Feature.NOTIF_CONFIG_DATA,
                    Feature.ADMIN_VQ);

    /** By custom the control queue of a NIC stays with the front-end: no back-end serves it. */
    private static final Features NET_CONTROL = Features.of(17, 18, 19, 20, 21, 22, 23, 57, 60);

    /** Where driver and device begin on a packed ring: index 0, wrap counter 1, for both. */
    private static final int PACKED_BASE = 0x8000_8000;

    private final VhostUserProvider.Device settings;
    private final SharedRegions memory;
    private final Features without;
    private final Poller poller = new Poller(this);
    private final Vring[] vrings = new Vring[VhostUser.MAX_VRINGS];
    private final AtomicInteger generation = new AtomicInteger();
    private final AtomicInteger needsReset = new AtomicInteger();
    private final AtomicBoolean gone = new AtomicBoolean();

    private volatile FrontEnd frontEnd;
    private volatile Listener listener;
    private volatile boolean closed;
    private Features accepted = Features.NONE;
    private boolean refused;
    private int status;

    /**
     * Connects.
     *
     * @throws VirtioException in one sentence that says what to do
     */
    VhostUserTransport(VhostUserProvider.Device settings) throws VirtioException {
        this.settings = settings;
        FrontEnd connected = connect(settings);
        try {
            frontEnd = connected;
            without = settings.address().without(deviceType());
            memory =
                    new SharedRegions(
                            settings.memoryBytes(),
                            settings.pageBytes(),
                            connected.maxRegions(),
                            (all, from) -> frontEnd.share(all, from));
            poller.openBackChannel(connected);
        } catch (IOException | RuntimeException e) {
            close();
            if (e instanceof VirtioException virtio) {
                throw virtio;
            }
            String memory =
                    "%s: no %d bytes of memory in pages of %d bytes: %s"
                            .formatted(
                                    connected.address(),
                                    settings.memoryBytes(),
                                    settings.pageBytes(),
                                    e.getMessage());
            throw new VirtioException(memory, e);
        }
    }

    private static FrontEnd connect(VhostUserProvider.Device device) throws VirtioException {
        return FrontEnd.connect(device.name(), device.address().path(), device.timeoutMillis());
    }

    @Override
    public int deviceType() {
        if (settings.address().deviceType() != 0) {
            return settings.address().deviceType();
        }
        FrontEnd peer = frontEnd;
        if (peer.offers(VhostUser.PROTOCOL_F_RARP) || peer.offers(VhostUser.PROTOCOL_F_MTU)) {
            return DeviceType.NETWORK;
        }
        // MRG_RXBUF and CTRL_RX to CTRL_MAC_ADDR: numbers that only a NIC uses.
        boolean netBits = (peer.features() & 0xFC_8000L) != 0;
        // A disk cannot do without configuration, a NIC can.
        return netBits || !peer.offers(VhostUser.PROTOCOL_F_CONFIG)
                ? DeviceType.NETWORK
                : DeviceType.BLOCK;
    }

    @Override
    public Features offered() {
        Features offered = Features.ofWords(frontEnd.features()).andNot(NOT_CARRIED);
        boolean net = deviceType() == DeviceType.NETWORK;
        return (net ? offered.andNot(NET_CONTROL) : offered).andNot(without);
    }

    @Override
    public void accept(Features features) throws VirtioException {
        Features told = features;
        if (frontEnd.hasProtocolFeatures()) {
            told = told.with(VhostUser.F_PROTOCOL_FEATURES);
        }
        if (!features.andNot(offered()).isEmpty()) {
            throw new VirtioException(
                    "%s does not offer features %s"
                            .formatted(frontEnd.address(), features.andNot(offered())));
        }
        accepted = features;
        frontEnd.setLong(VhostUser.SET_FEATURES, told.word(0));
        frontEnd.flush();
    }

    @Override
    public int status() throws VirtioException {
        int now = status;
        if (frontEnd.has(VhostUser.PROTOCOL_F_STATUS)) {
            now = (int) frontEnd.getLong(VhostUser.GET_STATUS) & 0xFF;
        }
        return now | needsReset.get();
    }

    @Override
    public void status(int value) throws VirtioException {
        if (value == 0) {
            reset();
            return;
        }
        if ((value & ~status & DeviceStatus.DRIVER_OK) != 0) {
            status = value;
            for (int queue = 0; queue < vrings.length; queue++) {
                if (vrings[queue] != null) {
                    enable(queue);
                }
            }
        }
        status = value;
        if (frontEnd.has(VhostUser.PROTOCOL_F_STATUS)) {
            frontEnd.setLong(VhostUser.SET_STATUS, value);
        }
    }

    /** Returns when the device accesses no memory any more. */
    private void reset() throws VirtioException {
        if (status == 0 && accepted.isEmpty()) {
            return;
        }
        boolean drained = true;
        for (int queue = 0; queue < vrings.length; queue++) {
            if (vrings[queue] != null) {
                drained &= stop(queue);
            }
        }
        FrontEnd peer = frontEnd;
        if (peer.has(VhostUser.PROTOCOL_F_RESET_DEVICE)) {
            peer.set(VhostUser.RESET_DEVICE, null);
            peer.flush();
            drained = true;
        }
        if (peer.has(VhostUser.PROTOCOL_F_STATUS)) {
            peer.setLong(VhostUser.SET_STATUS, 0);
            long now = peer.getLong(VhostUser.GET_STATUS);
            if (now != 0) {
                throw peer.fail("%s is reset and has status %d".formatted(peer.address(), now));
            }
            drained = true;
        }
        if (!peer.has(VhostUser.PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
            memory.unshare();
        }
        if (!drained) {
            reconnect();
        }
        status = 0;
        accepted = Features.NONE;
        needsReset.set(0);
    }

    /**
     * The way to wait for requests that a stopped ring has left in flight, where the back-end has
     * no reset: it ends them before it answers the next connection.
     */
    private void reconnect() throws VirtioException {
        poller.unwatch();
        frontEnd.close();
        memory.unshare();
        try {
            frontEnd = connect(settings);
            poller.openBackChannel(frontEnd);
            if (listener != null) {
                poller.watch(frontEnd);
            }
        } catch (IOException e) {
            VirtioException reason = frontEnd.fail("reset by reconnecting: " + e.getMessage());
            gone(reason);
            throw reason;
        }
        if (closed) {
            frontEnd.close();
        }
    }

    @Override
    public int configGeneration() {
        return generation.get();
    }

    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        checkConfig("read", offset, into.length);
        frontEnd.getConfig(offset, into);
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        checkConfig("write", offset, from.length);
        frontEnd.setConfig(offset, from);
        frontEnd.flush();
    }

    private void checkConfig(String verb, int offset, int length) throws VirtioException {
        if (!frontEnd.has(VhostUser.PROTOCOL_F_CONFIG)) {
            throw new VirtioException(
                    "%s: the back-end does not offer protocol feature CONFIG, so that there is no"
                            + " configuration to %s".formatted(frontEnd.address(), verb));
        }
        if (offset < 0 || offset > VhostUser.MAX_CONFIG_BYTES - length) {
            throw new VirtioException(
                    "%s: no configuration to %s at offset %d, %d bytes; limit is %d"
                            .formatted(
                                    frontEnd.address(),
                                    verb,
                                    offset,
                                    length,
                                    VhostUser.MAX_CONFIG_BYTES));
        }
    }

    @Override
    public int maxQueueSize(int queue) throws VirtioException {
        return queue >= 0 && queue < queueCount() ? MAX_QUEUE_SIZE : 0;
    }

    private int queueCount() {
        int count = frontEnd.queueCount();
        if (deviceType() == DeviceType.NETWORK) {
            return Math.min(2 * count, VhostUser.MAX_VRINGS);
        }
        return count;
    }

    @Override
    public MapToken mapToken(int queue) {
        return memory;
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        if (maxQueueSize(queue) < layout.size()) {
            throw new VirtioException(
                    "%s: queue %d with %d descriptors, limit is %d"
                            .formatted(
                                    frontEnd.address(), queue, layout.size(), maxQueueSize(queue)));
        }
        if (vrings[queue] != null) {
            throw new VirtioException(
                    "%s: queue %d is in use already".formatted(frontEnd.address(), queue));
        }
        memory.share();
        Vring vring;
        try {
            vring = new Vring(layout, accepted.has(Feature.RING_PACKED));
        } catch (LinuxException e) {
            throw new VirtioException(
                    "%s: queue %d: %s".formatted(frontEnd.address(), queue, e.getMessage()), e);
        }
        vrings[queue] = vring;
        FrontEnd peer = frontEnd;
        peer.setState(VhostUser.SET_VRING_NUM, queue, layout.size());
        peer.setState(VhostUser.SET_VRING_BASE, queue, vring.packed ? PACKED_BASE : 0);
        peer.set(VhostUser.SET_VRING_ADDR, vring.addresses(queue));
        peer.setLong(VhostUser.SET_VRING_ERR, queue, vring.err.file());
        peer.setLong(VhostUser.SET_VRING_CALL, queue, vring.call.file());
        peer.setLong(VhostUser.SET_VRING_KICK, queue, vring.kick.file());
        peer.flush();
        poller.watch(queue, vring);
        if ((status & DeviceStatus.DRIVER_OK) != 0) {
            enable(queue);
        }
    }

    private void enable(int queue) throws VirtioException {
        if (frontEnd.hasProtocolFeatures()) {
            frontEnd.setState(VhostUser.SET_VRING_ENABLE, queue, 1);
        }
        // A ring starts by a kick, and what was made available before is not looked at without.
        vrings[queue].notifyDevice();
    }

    @Override
    public boolean stopQueue(int queue) throws VirtioException {
        if (vrings[queue] != null) {
            stop(queue);
        }
        return true;
    }

    /** Stops the ring; whether nothing that the device took from it is still under way. */
    private boolean stop(int queue) throws VirtioException {
        Vring vring = vrings[queue];
        vrings[queue] = null;
        try (vring) {
            if (frontEnd.hasProtocolFeatures()) {
                frontEnd.setState(VhostUser.SET_VRING_ENABLE, queue, 0);
            }
            return vring.drained(frontEnd.getVringBase(queue));
        }
    }

    @Override
    public void notifyQueue(int queue, int data) {
        Vring vring = vrings[queue];
        if (vring != null) {
            vring.notifyDevice();
        }
    }

    @Override
    public void listen(Listener listener) {
        this.listener = listener;
        try {
            poller.start(frontEnd);
        } catch (LinuxException e) {
            gone(frontEnd.fail(frontEnd.address() + ": " + e.getMessage()));
        }
    }

    /** The device has used buffers. */
    void queueUsed(int queue) {
        try {
            listener.queueUsed(queue);
        } catch (RuntimeException e) {
            // One report that is not taken must not be the last one.
            LOG.log(Level.ERROR, frontEnd.address() + ": an interrupt was not taken", e);
        }
    }

    /** The device has changed its configuration. */
    void configChanged() {
        generation.incrementAndGet();
        listener.configChanged();
    }

    /** The device gives up a ring: what else means that it needs a reset. */
    void queueFailed() {
        needsReset.set(DeviceStatus.DEVICE_NEEDS_RESET);
        listener.configChanged();
    }

    /** The conversation has ended, by whatever. */
    void gone(VirtioException reason) {
        Listener told = listener;
        if (told != null && !closed && gone.compareAndSet(false, true)) {
            told.gone(reason);
        }
    }

    @Override
    public void close() {
        closed = true;
        poller.close();
        frontEnd.close();
        for (int queue = 0; queue < vrings.length; queue++) {
            Vring vring = vrings[queue];
            if (vring != null) {
                vrings[queue] = null;
                vring.close();
            }
        }
        if (memory != null) {
            memory.release();
        }
    }

    @Override
    public String toString() {
        return frontEnd.address();
    }
}
