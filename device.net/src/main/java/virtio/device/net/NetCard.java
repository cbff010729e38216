package virtio.device.net;

import virtio.api.ConfigSpace;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.Registration;
import virtio.api.VirtioDevice;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.net.Coalescing;
import virtio.api.net.Duplex;
import virtio.api.net.FrameHandler;
import virtio.api.net.FramePort;
import virtio.api.net.FrameTap;
import virtio.api.net.HashConfig;
import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetDevice;
import virtio.api.net.NetFeature;
import virtio.api.net.NetQueue;
import virtio.api.net.NetStatistics;
import virtio.api.net.ReceiveMode;

import java.lang.System.Logger.Level;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Function;

/** A network card: the service its consumers hold, and what the core calls below it. */
final class NetCard implements NetDevice, VirtioDriver.Bound {
    private static final int QUEUE_SIZE = 256;
    private static final int CONTROL_QUEUE_SIZE = 16;
    private static final System.Logger LOG = System.getLogger(NetCard.class.getPackageName());

    private final String name;
    private final QueuePair[] pairs;
    private final Runnable withdraw;
    private final LinkState link;
    private final AtomicReference<FrameTap> tap = new AtomicReference<>();

    /** The address of a card that has none. */
    private final byte[] ownAddress = new byte[NetConfig.MAC_BYTES];

    private volatile NetLimits limits;
    private volatile byte[] address;
    private volatile long swapTimeoutMillis;

    /** Guards what follows. */
    private final Object life = new Object();

    private final NetSettings settings = new NetSettings();

    /** Null while frozen. */
    private VirtioDevice device;

    private ControlQueue control;
    private String gone;

    /**
     * Takes the device over.
     *
     * @param announce tells consumers, and returns how to take that back
     */
    NetCard(VirtioDevice device, Function<NetDevice, Runnable> announce) throws VirtioException {
        name = device.name();
        link = new LinkState(name);
        new SecureRandom().nextBytes(ownAddress);
        // Locally administered, and no group address.
        ownAddress[0] = (byte) (ownAddress[0] & 0xFC | 2);
        NetLimits first = NetLimits.read(device.features(), device.config());
        limits = first;
        pairs = new QueuePair[first.pairs()];
        for (int i = 0; i < pairs.length; i++) {
            pairs[i] = new QueuePair(this, i);
        }
        try {
            start(device, first);
            withdraw = announce.apply(this);
        } catch (VirtioException | RuntimeException e) {
            giveBack();
            throw e;
        }
    }

    // NetDevice

    @Override
    public String name() {
        return name;
    }

    @Override
    public byte[] macAddress() {
        return address.clone();
    }

    @Override
    public int mtu() {
        return limits.mtu();
    }

    @Override
    public boolean linkUp() {
        return link.up();
    }

    @Override
    public int speedMegabits() {
        return link.speedMegabits();
    }

    @Override
    public Duplex duplex() {
        return link.duplex();
    }

    @Override
    public int queuePairs() {
        return pairs.length;
    }

    @Override
    public Features features() {
        return limits.features();
    }

    @Override
    public NetQueue openQueue(int pair) throws VirtioException {
        checkPair(pair);
        return pairs[pair].open();
    }

    @Override
    public FramePort openPort(int pair, FrameHandler handler) throws VirtioException {
        return new HandlerPort(this, openQueue(pair), pair, handler);
    }

    @Override
    public Registration onLinkChange(Runnable listener) {
        return link.listen(listener);
    }

    @Override
    public Registration capture(FrameTap wanted) throws VirtioException {
        FrameTap entry = wanted::frame;
        if (!tap.compareAndSet(null, entry)) {
            throw new VirtioException(name + " is captured already");
        }
        return () -> tap.compareAndSet(entry, null);
    }

    @Override
    public Set<ReceiveMode> receiveModes() {
        synchronized (life) {
            return settings.modes();
        }
    }

    @Override
    public void receiveModes(Set<ReceiveMode> modes) throws VirtioException {
        synchronized (life) {
            settings.modes(live(), limits, modes);
        }
    }

    @Override
    public void filterAddresses(List<byte[]> unicast, List<byte[]> multicast)
            throws VirtioException {
        synchronized (life) {
            settings.addresses(live(), limits, unicast, multicast);
        }
    }

    @Override
    public void addVlan(int vlan) throws VirtioException {
        synchronized (life) {
            settings.vlan(live(), limits, vlan, true);
        }
    }

    @Override
    public void removeVlan(int vlan) throws VirtioException {
        synchronized (life) {
            settings.vlan(live(), limits, vlan, false);
        }
    }

    @Override
    public void macAddress(byte[] wanted) throws VirtioException {
        synchronized (life) {
            settings.address(live(), limits, wanted);
            address = settings.address();
        }
    }

    @Override
    public Features guestOffloads() {
        synchronized (life) {
            return settings.guestOffloads(limits);
        }
    }

    @Override
    public void guestOffloads(Features offloads) throws VirtioException {
        synchronized (life) {
            settings.guestOffloads(live(), limits, offloads);
        }
    }

    @Override
    public Set<HashType> hashTypes() {
        return limits.hashing().types();
    }

    @Override
    public HashConfig hash() {
        synchronized (life) {
            return settings.hash();
        }
    }

    @Override
    public void hash(HashConfig config) throws VirtioException {
        synchronized (life) {
            settings.hash(live(), limits, config);
        }
    }

    @Override
    public Coalescing coalescing(int pair) {
        checkPair(pair);
        synchronized (life) {
            return settings.coalescing(pair);
        }
    }

    @Override
    public void coalescing(Coalescing coalescing) throws VirtioException {
        synchronized (life) {
            settings.coalescing(live(), limits, coalescing);
        }
    }

    @Override
    public void coalescing(int pair, Coalescing coalescing) throws VirtioException {
        checkPair(pair);
        synchronized (life) {
            settings.coalescing(live(), limits, pair, coalescing);
        }
    }

    private void checkPair(int pair) {
        if (pair < 0 || pair >= pairs.length) {
            throw new IllegalArgumentException(
                    "queue pair %d, %s has 0 to %d".formatted(pair, name, pairs.length - 1));
        }
    }

    @Override
    public NetStatistics statistics() {
        return new NetStatistics(Arrays.stream(pairs).map(QueuePair::statistics).toList());
    }

    @Override
    public String toString() {
        return "%s (%s)".formatted(name, NetLimits.text(address));
    }

    /** With the lock on our life: the control queue, waiting for the device while it is frozen. */
    private ControlQueue live() throws VirtioException {
        long start = System.nanoTime();
        while (device == null && gone == null) {
            long left =
                    swapTimeoutMillis - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
            if (left <= 0) {
                throw new VirtioException(
                        "%s was frozen for more than %d ms".formatted(name, swapTimeoutMillis));
            }
            try {
                life.wait(left);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new VirtioException("%s: interrupted while frozen".formatted(name), e);
            }
        }
        if (gone != null) {
            throw new VirtioException("%s: %s".formatted(name, gone));
        }
        return control;
    }

    // For the other classes of the driver.

    /** Null when nobody captures. */
    FrameTap tap() {
        return tap.get();
    }

    long swapTimeoutMillis() {
        return swapTimeoutMillis;
    }

    // VirtioDriver.Bound

    @Override
    public void configChanged() {
        VirtioDevice d;
        ControlQueue c;
        synchronized (life) {
            d = device;
            c = control;
        }
        if (d == null) {
            return;
        }
        try {
            boolean before = link.up();
            int status = link.read(d, limits);
            if (link.up() != before) {
                link.tell();
            }
            link.announce(status, limits, pairs[0], address, c);
        } catch (VirtioException e) {
            LOG.log(
                    Level.WARNING,
                    "{0}: new configuration is not taken: {1}",
                    name,
                    e.getMessage());
        }
    }

    @Override
    public void compatible(Features features, ConfigSpace config) throws VirtioException {
        same(NetLimits.read(features, config));
    }

    private void same(NetLimits other) throws VirtioException {
        try {
            synchronized (life) {
                // An address that a consumer has set is set again.
                boolean settable =
                        settings.address() != null && other.has(NetFeature.CTRL_MAC_ADDR);
                limits.same(other, settable && other.mac() != null ? other.mac() : address);
                settings.check(limits, other);
            }
        } catch (VirtioException e) {
            throw new VirtioException(
                    "%s: not the same card: %s".formatted(name, e.getMessage()), e);
        }
    }

    @Override
    public void freeze(long drainMillis) {
        ControlQueue c;
        synchronized (life) {
            device = null;
            c = control;
        }
        for (QueuePair pair : pairs) {
            pair.drain();
        }
        long start = System.nanoTime();
        for (QueuePair pair : pairs) {
            while (!pair.drained()
                    && System.nanoTime() - start < TimeUnit.MILLISECONDS.toNanos(drainMillis)) {
                LockSupport.parkNanos(20_000);
            }
        }
        if (c != null && drainMillis > 0) {
            try {
                settings.deafen(c, limits);
            } catch (VirtioException e) {
                LOG.log(
                        Level.WARNING,
                        "{0}: frames received from here on are lost: {1}",
                        name,
                        e.getMessage());
            }
        }
        for (QueuePair pair : pairs) {
            pair.freeze();
        }
    }

    @Override
    public void restore(VirtioDevice device) throws VirtioException {
        NetLimits now = NetLimits.read(device.features(), device.config());
        same(now);
        closeControl();
        boolean before = link.up();
        // The device may have more than consumers know of.
        start(device, now.withPairs(pairs.length));
        if (link.up() != before) {
            link.tell();
        }
    }

    @Override
    public void abandon(VirtioException reason) {
        end(reason.getMessage());
    }

    @Override
    public void remove() {
        synchronized (life) {
            device = null;
        }
        for (QueuePair pair : pairs) {
            pair.freeze();
        }
        // Before the service goes: consumers that let go of it then wait for nothing.
        end("the device was removed");
        withdraw.run();
        giveBack();
    }

    private void giveBack() {
        closeControl();
        for (QueuePair pair : pairs) {
            pair.freeze();
            pair.remove();
        }
    }

    private void end(String reason) {
        synchronized (life) {
            gone = reason;
            life.notifyAll();
        }
        for (QueuePair pair : pairs) {
            pair.abandon(reason);
        }
    }

    /** The device that could write to its memory is reset. */
    private void closeControl() {
        synchronized (life) {
            if (control != null) {
                control.close();
                control = null;
            }
        }
    }

    /** Makes the queues, sets DRIVER_OK and lets frames go; nothing is kept when it throws. */
    private void start(VirtioDevice d, NetLimits now) throws VirtioException {
        boolean controlled = now.has(NetFeature.CTRL_VQ);
        int controlIndex = 2 * now.maxPairs();
        QueueRequest[] wanted = new QueueRequest[controlled ? controlIndex + 1 : 2 * pairs.length];
        for (int i = 0; i < pairs.length; i++) {
            QueuePair pair = pairs[i];
            wanted[2 * i] = new QueueRequest("receiveq." + i, QUEUE_SIZE, q -> pair.received());
            wanted[2 * i + 1] = new QueueRequest("transmitq." + i, QUEUE_SIZE, null);
        }
        if (controlled) {
            wanted[controlIndex] = new QueueRequest("controlq", CONTROL_QUEUE_SIZE, null);
        }
        Virtqueue[] vqs = d.findQueues(wanted);
        PacketPool[] pools = new PacketPool[pairs.length];
        ControlQueue c = null;
        int status;
        try {
            for (int i = 0; i < pools.length; i++) {
                pools[i] = QueuePair.pool(name, vqs[2 * i], vqs[2 * i + 1], now);
            }
            if (controlled) {
                c = new ControlQueue(name, vqs[controlIndex]);
            }
            d.ready();
            synchronized (life) {
                settings.apply(c, now);
            }
            status = link.read(d, now);
        } catch (VirtioException | RuntimeException e) {
            for (PacketPool pool : pools) {
                if (pool != null) {
                    pool.close();
                }
            }
            if (c != null) {
                c.close();
            }
            throw e;
        }
        limits = now;
        byte[] set = settings.address();
        address = set != null ? set : now.mac() != null ? now.mac() : ownAddress;
        synchronized (life) {
            device = d;
            control = c;
            gone = null;
            swapTimeoutMillis = d.swapTimeoutMillis();
            life.notifyAll();
        }
        for (int i = 0; i < pairs.length; i++) {
            pairs[i].resume(vqs[2 * i], vqs[2 * i + 1], pools[i], now);
        }
        link.announce(status, now, pairs[0], address, c);
    }
}
