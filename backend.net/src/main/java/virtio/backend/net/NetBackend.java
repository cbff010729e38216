package virtio.backend.net;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.net.Duplex;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;

import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.concurrent.atomic.LongAdder;

/**
 * The network device in software (virtio 5.1): a port of a {@link Link} that a driver drives.
 *
 * <p>A frame that a driver sends with something wrong in its header is dropped. What a receiver
 * cannot take as it is, is checksummed and segmented for it first.
 */
final class NetBackend implements Backend, Port {
    private static final System.Logger LOG = System.getLogger(NetBackend.class.getPackageName());
    private static final int UNKNOWN_DUPLEX = 0xFF;

    private final NetSpec spec;
    private final Link link;
    private final Features offered;
    private final byte[] config = new byte[NetConfig.BYTES];
    private final AtomicReferenceArray<ReceiveQueue> receiving;
    private final Sending[] sending;
    private final Notifications notifications;
    private final Commands commands;

    /** Null while no driver has chosen. */
    private volatile Features accepted;

    private volatile ReceiveFilter filter;

    /** Offloads that received frames may carry, as feature bits. */
    private volatile Features guestOffloads = Features.NONE;

    /** Null while nothing is hashed. */
    private volatile ReceiveHash hashing;

    private volatile int activePairs = 1;
    private volatile Chain control;

    /** Frames for the driver that were dropped, for want of room or because they were too long. */
    final LongAdder dropped = new LongAdder();

    /** Frames that the driver did not want. */
    final LongAdder filtered = new LongAdder();

    /** Frames of the driver with something wrong. */
    final LongAdder bad = new LongAdder();

    /**
     * A port that is to join the link.
     *
     * @param filters whether others are on the link: their frames are kept from the driver, and
     *     they are to hear where it is
     */
    NetBackend(NetSpec spec, Link link, boolean filters) {
        this.spec = spec;
        this.link = link;
        receiving = new AtomicReferenceArray<>(spec.pairs());
        sending = new Sending[spec.pairs()];
        notifications = new Notifications(spec.target(), 2 * spec.pairs());
        commands = new Commands(this, notifications);
        Features features =
                Features.of(
                        Feature.VERSION_1,
                        NetFeature.CSUM,
                        NetFeature.GUEST_CSUM,
                        NetFeature.CTRL_GUEST_OFFLOADS,
                        NetFeature.MTU,
                        NetFeature.MAC,
                        NetFeature.GUEST_TSO4,
                        NetFeature.GUEST_TSO6,
                        NetFeature.GUEST_ECN,
                        NetFeature.GUEST_USO4,
                        NetFeature.GUEST_USO6,
                        NetFeature.HOST_TSO4,
                        NetFeature.HOST_TSO6,
                        NetFeature.HOST_ECN,
                        NetFeature.HOST_USO,
                        NetFeature.MRG_RXBUF,
                        NetFeature.STATUS,
                        NetFeature.CTRL_VQ,
                        NetFeature.CTRL_MAC_ADDR,
                        NetFeature.VQ_NOTF_COAL,
                        NetFeature.NOTF_COAL,
                        NetFeature.HASH_REPORT,
                        NetFeature.GUEST_HDRLEN);
        if (filters) {
            features =
                    features.with(
                            NetFeature.CTRL_RX,
                            NetFeature.CTRL_RX_EXTRA,
                            NetFeature.CTRL_VLAN,
                            NetFeature.GUEST_ANNOUNCE);
        }
        if (spec.pairs() > 1) {
            features = features.with(NetFeature.MQ, NetFeature.RSS);
        }
        if (spec.speedMegabits() >= 0) {
            features = features.with(NetFeature.SPEED_DUPLEX);
        }
        features = features.andNot(spec.without());
        if (!features.has(NetFeature.CTRL_VQ)) {
            features = features.without(NetFeature.CTRL_RX_EXTRA, NetFeature.HASH_REPORT);
        }
        offered = features;
        ByteBuffer c = ByteBuffer.wrap(config).order(ByteOrder.LITTLE_ENDIAN);
        c.put(NetConfig.MAC, spec.mac());
        c.putShort(NetConfig.STATUS, (short) NetConfig.S_LINK_UP);
        c.putShort(NetConfig.MAX_VIRTQUEUE_PAIRS, (short) spec.pairs());
        c.putShort(NetConfig.MTU, (short) spec.mtu());
        c.putInt(NetConfig.SPEED, spec.speedMegabits());
        c.put(
                NetConfig.DUPLEX,
                (byte) (spec.speedMegabits() < 0 ? UNKNOWN_DUPLEX : Duplex.FULL.ordinal()));
        c.put(NetConfig.RSS_MAX_KEY_SIZE, (byte) ReceiveHash.MAX_KEY);
        c.putShort(NetConfig.RSS_MAX_INDIRECTION_TABLE_LENGTH, (short) ReceiveHash.MAX_TABLE);
        c.putInt(NetConfig.SUPPORTED_HASH_TYPES, ReceiveHash.TYPES);
        filter = ReceiveFilter.of(Features.NONE, ReceiveFilter.number(spec.mac()));
    }

    @Override
    public int deviceType() {
        return DeviceType.NETWORK;
    }

    @Override
    public Features offered() {
        return offered;
    }

    @Override
    public int queueCount() {
        return 2 * spec.pairs() + 1;
    }

    @Override
    public int configSize() {
        return config.length;
    }

    @Override
    public void readConfig(int offset, byte[] into) {
        synchronized (config) {
            System.arraycopy(config, offset, into, 0, into.length);
        }
    }

    @Override
    public void writeConfig(int offset, byte[] from) {}

    @Override
    public void onConfigChange(Runnable listener) {}

    @Override
    public void accepted(Features features) {
        long mac = ReceiveFilter.number(spec.mac());
        synchronized (config) {
            System.arraycopy(spec.mac(), 0, config, NetConfig.MAC, NetConfig.MAC_BYTES);
            // The link does not know yet where this port is now.
            boolean announce = features.has(NetFeature.GUEST_ANNOUNCE);
            config[NetConfig.STATUS] =
                    (byte) (NetConfig.S_LINK_UP | (announce ? NetConfig.S_ANNOUNCE : 0));
        }
        filter = ReceiveFilter.of(features, mac);
        guestOffloads = features.and(Commands.GUEST_OFFLOADS);
        activePairs = 1;
        hashing = null;
        notifications.reset();
        accepted = features;
    }

    /** The control queue's number: behind all pairs, or the first one (5.1.2). */
    private int controlIndex() {
        Features features = accepted;
        return features != null
                        && features.has(NetFeature.CTRL_VQ)
                        && !features.has(NetFeature.MQ)
                        && !features.has(NetFeature.RSS)
                ? 2
                : 2 * spec.pairs();
    }

    /**
     * Some transports keep the control queue at the driver's side, as vhost-user does with most
     * front-ends: then nobody says here what is wanted, and the queues that run are those in use.
     */
    private void useWhatRuns() {
        if (!accepted.has(NetFeature.CTRL_VQ)) {
            int pairs = spec.pairs();
            while (pairs > 1 && receiving.get(pairs - 1) == null) {
                pairs--;
            }
            activePairs = pairs;
        }
    }

    @Override
    public void queueStarted(DeviceQueue queue) {
        int index = queue.index();
        if (index == controlIndex()) {
            control = queue.newChain();
        } else if (index % 2 == 0) {
            receiving.set(
                    index / 2, new ReceiveQueue(queue, notifications.started(queue), accepted));
            useWhatRuns();
        } else {
            sending[index / 2] =
                    new Sending(
                            queue.newChain(),
                            notifications.started(queue),
                            accepted.has(NetFeature.HASH_REPORT)
                                    ? NetHeader.HASH_BYTES
                                    : NetHeader.BYTES);
        }
    }

    @Override
    public void process(DeviceQueue queue) throws VirtioException {
        int index = queue.index();
        if (index == controlIndex()) {
            commands.process(queue, control);
        } else if (index % 2 == 0) {
            dropped.add(receiving.get(index / 2).process());
        } else {
            send(queue, sending[index / 2]);
        }
    }

    private void send(DeviceQueue queue, Sending s) {
        Frame frame = s.sender.frame;
        while (queue.next(s.chain)) {
            long bytes = s.chain.readableBytes() - s.headerBytes;
            if (bytes < 0 || bytes > NetHeader.MAX_FRAME_BYTES) {
                bad(
                        "frame of %d bytes behind its header of %d, the limit is %d"
                                .formatted(bytes, s.headerBytes, NetHeader.MAX_FRAME_BYTES));
            } else {
                frame.length = (int) bytes;
                if (s.headerBytes == Frame.HEADER) {
                    s.chain.read(0, frame.memory, 0, Frame.HEADER + bytes);
                } else {
                    // What a driver says about a hash means nothing.
                    s.chain.read(0, frame.memory, 0, Frame.HEADER);
                    s.chain.read(s.headerBytes, frame.memory, Frame.HEADER, bytes);
                }
                String wrong = frame.bad();
                if (wrong == null) {
                    link.send(this, s.sender);
                } else {
                    bad(wrong);
                }
            }
            queue.complete(s.chain, 0);
            s.notifications.used();
        }
        s.sender.flush();
        s.notifications.settle();
    }

    /** One line for the operator, not one per frame. */
    private void bad(String reason) {
        if (bad.sum() == 0) {
            LOG.log(Level.WARNING, "{0}: dropped from its driver: {1}", spec.target(), reason);
        }
        bad.increment();
    }

    @Override
    public void queueStopped(DeviceQueue queue) {
        int index = queue.index();
        if (index == controlIndex()) {
            control = null;
            return;
        }
        notifications.stopped(index);
        if (index % 2 == 0) {
            ReceiveQueue stopped = receiving.getAndSet(index / 2, null);
            useWhatRuns();
            if (stopped != null) {
                stopped.stop();
            }
        } else {
            sending[index / 2] = null;
        }
    }

    @Override
    public void close() {
        notifications.close();
        link.leave(this);
    }

    // Port

    @Override
    public void deliver(Sender sender) {
        Frame frame = sender.frame;
        // Without a control queue nobody has said what is wanted.
        if (accepted == null || control != null && !filter.accepts(frame)) {
            filtered.increment();
            return;
        }
        int gso = frame.gsoType();
        if (gso == NetHeader.GSO_NONE) {
            if (frame.needsChecksum() && !guestOffloads.has(NetFeature.GUEST_CSUM)) {
                sender.other.copyFrom(frame);
                sender.other.completeChecksum();
                put(sender.other, sender);
            } else {
                put(frame, sender);
            }
        } else if (takes(gso, frame)) {
            put(frame, sender);
        } else {
            sender.segmentation.split(frame, segment -> put(segment, sender));
        }
    }

    private boolean takes(int gso, Frame frame) {
        Features guest = guestOffloads;
        if (frame.ecn() && !guest.has(NetFeature.GUEST_ECN) || !guest.has(NetFeature.GUEST_CSUM)) {
            return false;
        }
        boolean v4 = frame.get8(frame.ethernetBytes()) >>> 4 == 4;
        return switch (gso) {
            case NetHeader.GSO_TCPV4 -> guest.has(NetFeature.GUEST_TSO4);
            case NetHeader.GSO_TCPV6 -> guest.has(NetFeature.GUEST_TSO6);
            default -> guest.has(v4 ? NetFeature.GUEST_USO4 : NetFeature.GUEST_USO6);
        };
    }

    private void put(Frame frame, Sender sender) {
        int most = spec.mtu() + frame.ethernetBytes();
        if (frame.length > most
                && frame.gsoType() == NetHeader.GSO_NONE
                && accepted.has(NetFeature.MTU)) {
            dropped.increment();
            return;
        }
        ReceiveHash by = hashing;
        long hash = by == null ? ReceiveHash.NONE : by.of(frame);
        ReceiveQueue queue = by != null && by.steers() ? receiving.get(by.pair(hash)) : any(frame);
        if (queue == null || !queue.ring.put(frame, hash)) {
            dropped.increment();
        }
        if (queue != null) {
            sender.tell(queue);
        }
    }

    /** Null when there is none. */
    private ReceiveQueue any(Frame frame) {
        ReceiveQueue queue = receiving.get(steer(frame));
        for (int pair = 0; queue == null && pair < activePairs; pair++) {
            // The queue is being reset (DEV-NET-090).
            queue = receiving.get(pair);
        }
        return queue;
    }

    /** Frames of one flow go to one queue. */
    private int steer(Frame frame) {
        int pairs = activePairs;
        if (pairs == 1) {
            return 0;
        }
        int ip = frame.ethernetBytes();
        int type = frame.get16(ip - 2);
        long hash = frame.source() ^ frame.destination();
        if (type == ReceiveHash.ETHERNET_IPV4 && frame.length >= ip + 24) {
            hash = frame.get32(ip + 12) ^ frame.get32(ip + 16) ^ frame.get8(ip + 9);
            int protocol = frame.get8(ip + 9);
            if ((protocol == 6 || protocol == 17) && (frame.get16(ip + 6) & 0x3FFF) == 0) {
                hash ^= frame.get32(ip + (frame.get8(ip) & 0xF) * 4);
            }
        } else if (type == ReceiveHash.ETHERNET_IPV6 && frame.length >= ip + 44) {
            for (int at = 8; at <= 40; at += 4) {
                hash ^= frame.get32(ip + at);
            }
        }
        // The highest bits: those of a flow's neighbours differ in them most.
        return (int) ((hash * 0x9E3779B97F4A7C15L >>> 32) * pairs >>> 32);
    }

    // For the control queue.

    Features features() {
        return accepted;
    }

    int pairs() {
        return spec.pairs();
    }

    ReceiveFilter filter() {
        return filter;
    }

    void filter(ReceiveFilter now) {
        filter = now;
    }

    void guestOffloads(Features now) {
        guestOffloads = now;
    }

    /** From here on packets are spread without a table. */
    void activePairs(int now) {
        activePairs = now;
        ReceiveHash hash = hashing;
        hashing = hash == null ? null : hash.unsteered();
    }

    void hashing(ReceiveHash now) {
        hashing = now;
    }

    void mac(byte[] now) {
        synchronized (config) {
            System.arraycopy(now, 0, config, NetConfig.MAC, NetConfig.MAC_BYTES);
        }
        filter = filter.withMac(ReceiveFilter.number(now));
    }

    void announced() {
        synchronized (config) {
            config[NetConfig.STATUS] &= ~NetConfig.S_ANNOUNCE;
        }
    }

    @Override
    public String toString() {
        return spec.target();
    }

    /** What the thread of one transmit queue needs. */
    private static final class Sending {
        final Chain chain;
        final Notifications.Queue notifications;
        final int headerBytes;
        final Sender sender = new Sender();

        Sending(Chain chain, Notifications.Queue notifications, int headerBytes) {
            this.chain = chain;
            this.notifications = notifications;
            this.headerBytes = headerBytes;
        }
    }
}
