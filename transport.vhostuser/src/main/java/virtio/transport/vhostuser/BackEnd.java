package virtio.transport.vhostuser;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.NetFeature;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.linux.Epoll;
import virtio.linux.Errno;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * One front-end at a device: its messages, its memory and its rings.
 *
 * <p>Run by one thread. {@link #ring}, {@link #configChanged}, {@link #queueBroken} and {@link
 * #hangUp} may be called by any.
 *
 * <p>What a front-end may not do ends the conversation with one sentence in the log, after an
 * answer that says so where it waits for one; everything it brought along is given back.
 */
final class BackEnd implements AutoCloseable {
    private static final Logger LOG = System.getLogger(BackEnd.class.getPackageName());

    private static final long PROTOCOL =
            bit(VhostUser.PROTOCOL_F_MQ)
                    | bit(VhostUser.PROTOCOL_F_REPLY_ACK)
                    | bit(VhostUser.PROTOCOL_F_BACKEND_REQ)
                    | bit(VhostUser.PROTOCOL_F_CONFIG)
                    | bit(VhostUser.PROTOCOL_F_INFLIGHT_SHMFD)
                    | bit(VhostUser.PROTOCOL_F_RESET_DEVICE)
                    | bit(VhostUser.PROTOCOL_F_CONFIGURE_MEM_SLOTS)
                    | bit(VhostUser.PROTOCOL_F_STATUS);

    /** Not carried: no IOTLB messages, no data with a kick, no functions, no administration. */
    private static final Features NOT_CARRIED =
            Features.of(
                    VhostUser.F_LOG_ALL,
                    Feature.ACCESS_PLATFORM,
                    Feature.SR_IOV,
                    Feature.NOTIFICATION_DATA,
                    Feature.NOTIF_CONFIG_DATA,
                    Feature.ADMIN_VQ);

    /**
     * What a front-end that keeps a NIC's control queue has agreed on with its driver: QEMU says
     * that here as well.
     */
    private static final Features KEPT =
            Features.of(NetFeature.GUEST_ANNOUNCE, NetFeature.MQ, NetFeature.RSS);

    /**
     * A front-end that takes longer for the rest of a message, or for reading an answer, is out.
     */
    private static final int REST_MILLIS = 5000;

    /** What {@link #epoll} says of the socket; a ring is said by its index. */
    private static final long SOCKET = -1;

    private final String address;
    private final Features without;
    private final ExportedDevice device;
    private final Connection connection;
    private final Epoll epoll;
    private final BackEndMemory memory = new BackEndMemory();
    private final BackEndRings rings;
    private final AtomicInteger status = new AtomicInteger();
    private final Object channelLock = new Object();

    /** The front-end's socket for messages from here; null while there is none. */
    private FileDescriptor channel;

    private volatile boolean hungUp;
    private long protocol;

    BackEnd(
            String address,
            Features without,
            ExportedDevice device,
            UnixSocket socket,
            Export export)
            throws LinuxException {
        this.address = address;
        this.without = without;
        this.device = device;
        this.connection = new Connection(socket);
        this.epoll = Epoll.create(16);
        this.rings = new BackEndRings(address, device, memory, epoll, export);
        try {
            epoll.add(socket.file(), FileDescriptor.IN, SOCKET);
        } catch (LinuxException e) {
            epoll.close();
            throw e;
        }
    }

    private static long bit(int number) {
        return 1L << number;
    }

    BackEndRing ring(int queue) {
        return rings.get(queue);
    }

    private boolean has(int protocolFeature) {
        return (protocol & bit(protocolFeature)) != 0;
    }

    /** Serves the front-end until it leaves or is dropped. */
    void serve() {
        try {
            while (!hungUp) {
                int ready = epoll.await(-1);
                for (int i = 0; i < ready; i++) {
                    long what = epoll.data(i);
                    if (what != SOCKET) {
                        rings.kicked((int) what);
                    } else if (!receive()) {
                        return;
                    }
                }
            }
        } catch (IOException e) {
            LOG.log(Level.WARNING, "{0}: front-end dropped: {1}", address, e.getMessage());
        }
    }

    /** Ends {@link #serve}. */
    void hangUp() {
        hungUp = true;
        // The session may be waiting for a queue that such a front-end holds up.
        rings.deafen();
        try {
            // Not by closing the socket: nobody would be told.
            epoll.wakeUp();
        } catch (LinuxException e) {
            // It has ended.
        }
    }

    private boolean receive() throws IOException {
        try (Message message = connection.receive(0, REST_MILLIS)) {
            if (message == null) {
                return false;
            }
            try {
                ByteBuffer reply = handle(message);
                if (reply != null) {
                    answer(message, reply);
                } else if (isAcked(message) && message.request() != VhostUser.GET_INFLIGHT_FD) {
                    answer(message, Message.u64(0));
                }
            } catch (Refusal e) {
                LOG.log(Level.WARNING, "{0}: {1}", address, e.getMessage());
                if (isAcked(message)) {
                    answer(message, Message.u64(1));
                }
            } catch (VirtioException e) {
                if (isAcked(message)) {
                    answer(message, Message.u64(1));
                }
                throw e;
            }
            return true;
        } catch (SocketTimeoutException e) {
            return true;
        } catch (LinuxException e) {
            // Closed from here, or by a front-end that left without reading all its answers.
            if (!connection.file().isOpen()
                    || e.errno() == Errno.ECONNRESET
                    || e.errno() == Errno.EPIPE) {
                return false;
            }
            throw e;
        }
    }

    /** Linux's virtio_uml wants it for the message that agrees on acknowledgements as well. */
    private boolean isAcked(Message message) {
        return message.needsReply() && has(VhostUser.PROTOCOL_F_REPLY_ACK);
    }

    private void answer(Message to, ByteBuffer payload, FileDescriptor... fds) throws IOException {
        connection.send(to.request(), VhostUser.REPLY, payload, REST_MILLIS, fds);
    }

    /** Does what is asked; the reply that it always has, unless that is sent, or null. */
    private ByteBuffer handle(Message message) throws IOException {
        switch (message.request()) {
            case VhostUser.GET_FEATURES:
                return Message.u64(offered().word(0));
            case VhostUser.SET_FEATURES:
                setFeatures(message.u64());
                return null;
            case VhostUser.GET_PROTOCOL_FEATURES:
                return Message.u64(PROTOCOL);
            case VhostUser.SET_PROTOCOL_FEATURES:
                if ((message.u64() & ~PROTOCOL) != 0) {
                    throw new VirtioException(
                            "SET_PROTOCOL_FEATURES %#x, offered are %#x"
                                    .formatted(message.u64(), PROTOCOL));
                }
                protocol = message.u64();
                return null;
            case VhostUser.SET_OWNER:
                return null;
            case VhostUser.RESET_OWNER:
                rings.enableAll(false);
                return null;
            case VhostUser.RESET_DEVICE:
                reset();
                return null;
            case VhostUser.GET_QUEUE_NUM:
                boolean pairs = device.deviceType() == DeviceType.NETWORK;
                return Message.u64(pairs ? rings.count() / 2 : rings.count());
            case VhostUser.GET_CONFIG:
                return getConfig(message);
            case VhostUser.SET_CONFIG:
                setConfig(message);
                return null;
            case VhostUser.SET_STATUS:
                setStatus(message.u64());
                return null;
            case VhostUser.GET_STATUS:
                return Message.u64(status.get());
            case VhostUser.SET_BACKEND_REQ_FD:
                message.expectFds(1);
                message.expectKind("socket:");
                setChannel(message.fds().removeFirst());
                return null;
            case VhostUser.GET_MAX_MEM_SLOTS:
                return Message.u64(MemoryTable.MAX_REGIONS);
            case VhostUser.SET_MEM_TABLE:
                memory.setTable(message, rings);
                return null;
            case VhostUser.ADD_MEM_REG:
                memory.addRegion(message, rings);
                return null;
            case VhostUser.REM_MEM_REG:
                memory.removeRegion(message, rings);
                return null;
            case VhostUser.GET_INFLIGHT_FD:
                memory.getInflight(message, rings, this::answer);
                return null;
            case VhostUser.SET_INFLIGHT_FD:
                memory.setInflight(message, rings);
                return null;
            default:
                return rings.handle(message);
        }
    }

    private Features offered() {
        Features offered = device.offered().andNot(NOT_CARRIED).andNot(without);
        return offered.with(VhostUser.F_PROTOCOL_FEATURES);
    }

    private void setFeatures(long bits) throws VirtioException {
        Features features = Features.ofWords(bits);
        if (!features.andNot(offered()).isEmpty()) {
            throw new Refusal(
                    "SET_FEATURES with bits %s, which are not offered"
                            .formatted(features.andNot(offered())));
        }
        boolean protocolFeatures = features.has(VhostUser.F_PROTOCOL_FEATURES);
        Features wanted = features.without(VhostUser.F_PROTOCOL_FEATURES);
        if (device.deviceType() == DeviceType.NETWORK && !wanted.has(NetFeature.CTRL_VQ)) {
            wanted = wanted.andNot(KEPT);
        }
        if (!rings.accept(wanted)) {
            throw new Refusal("SET_FEATURES %#x is not acceptable".formatted(bits));
        }
        if (!protocolFeatures) {
            rings.enableAll(true);
        }
    }

    private void setStatus(long value) throws VirtioException {
        if ((value & ~0xFFL) != 0) {
            throw new VirtioException("SET_STATUS %#x, limit is 0xff".formatted(value));
        }
        if (value == 0) {
            reset();
            return;
        }
        int next = (int) value;
        if (!rings.isAccepted()) {
            next &= ~DeviceStatus.FEATURES_OK;
        }
        int told = next;
        status.updateAndGet(now -> told | now & DeviceStatus.DEVICE_NEEDS_RESET);
    }

    /** As at the beginning; the memory and the front-end's counters stay. */
    private void reset() {
        rings.reset();
        status.set(0);
    }

    private ByteBuffer getConfig(Message message) throws VirtioException {
        int size = configBytes(message);
        int offset = message.payload().getInt(0);
        int limit = Math.min(device.configSize(), VhostUser.MAX_CONFIG_BYTES);
        if (offset < 0 || size <= 0 || size > limit - offset) {
            LOG.log(
                    Level.WARNING,
                    "{0}: GET_CONFIG of {1} bytes at offset {2}, limit is {3}",
                    address,
                    size,
                    offset,
                    limit);
            return Message.payload(0);
        }
        byte[] config = new byte[size];
        device.readConfig(offset, config);
        ByteBuffer reply = Message.payload(VhostUser.CONFIG_HEADER_BYTES + size);
        reply.putInt(0, offset).putInt(4, size);
        return reply.put(VhostUser.CONFIG_HEADER_BYTES, config);
    }

    private void setConfig(Message message) throws VirtioException {
        int size = configBytes(message);
        int offset = message.payload().getInt(0);
        if (offset < 0 || size < 0 || size > device.configSize() - offset) {
            throw new Refusal(
                    "SET_CONFIG of %d bytes at offset %d, there are %d"
                            .formatted(size, offset, device.configSize()));
        }
        message.expect(VhostUser.CONFIG_HEADER_BYTES + size);
        byte[] config = new byte[size];
        message.payload().get(VhostUser.CONFIG_HEADER_BYTES, config);
        device.writeConfig(offset, config);
    }

    private static int configBytes(Message message) throws VirtioException {
        if (message.size() < VhostUser.CONFIG_HEADER_BYTES) {
            message.expect(VhostUser.CONFIG_HEADER_BYTES);
        }
        return message.payload().getInt(4);
    }

    private void setChannel(FileDescriptor file) {
        synchronized (channelLock) {
            if (channel != null) {
                channel.close();
            }
            channel = file;
        }
    }

    /**
     * Tells the front-end, where it wants to know, that the configuration has changed. A device all
     * of whose rings are stopped is suspended and says nothing.
     */
    void configChanged() {
        synchronized (channelLock) {
            if (channel == null || !rings.isAnyRunning()) {
                return;
            }
            ByteBuffer header = Message.payload(VhostUser.HEADER_BYTES);
            header.putInt(VhostUser.BACKEND_CONFIG_CHANGE_MSG).putInt(VhostUser.VERSION).putInt(0);
            try {
                // A front-end that reads nothing must not hold up the device.
                if (channel.poll(FileDescriptor.OUT, 0) == FileDescriptor.OUT) {
                    channel.write(Message.natively(header));
                }
            } catch (LinuxException e) {
                LOG.log(Level.DEBUG, "{0}: {1}", address, e.getMessage());
            }
        }
    }

    /** The front-end broke a promise on a ring, which is out of use until it is set up again. */
    void queueBroken(int queue, String reason) {
        LOG.log(Level.WARNING, "{0}: broken: {1}", address, reason);
        status.updateAndGet(now -> now | DeviceStatus.DEVICE_NEEDS_RESET);
        rings.get(queue).fail();
        configChanged();
    }

    /** Stops all rings and gives back all that the front-end brought. */
    @Override
    public void close() {
        connection.close();
        if (rings.close()) {
            memory.close();
        }
        setChannel(null);
        epoll.close();
    }

    /** A request that is not granted, which is no reason to end the conversation. */
    static final class Refusal extends VirtioException {
        private static final long serialVersionUID = 1L;

        Refusal(String message) {
            super(message);
        }
    }
}
