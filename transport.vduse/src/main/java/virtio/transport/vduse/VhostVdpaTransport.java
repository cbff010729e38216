package virtio.transport.vduse;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.EventLoop;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The driver end of a vDPA device that vhost-vdpa holds.
 *
 * <p>The kernel says nothing by itself when a device's server dies or the device is to be removed:
 * requests wait until there is a server again, and a removal waits until this end lets go.
 */
final class VhostVdpaTransport implements Transport {
    private static final Logger LOG = System.getLogger(VhostVdpaTransport.class.getPackageName());

    /** VHOST_F_LOG_ALL: what the device wrote, for migration. */
    private static final int F_LOG_ALL = 26;

    /** Not carried: vhost-vdpa has no word for one queue's reset, nor for data with a kick. */
    private static final Features NOT_CARRIED =
            Features.of(
                    F_LOG_ALL,
                    Feature.SR_IOV,
                    Feature.NOTIFICATION_DATA,
                    Feature.NOTIF_CONFIG_DATA,
                    Feature.RING_RESET,
                    Feature.ADMIN_VQ);

    /** Backend features that are used where the kernel has them for the device. */
    private static final long WANTED =
            1L << VhostVdpa.BACKEND_F_IOTLB_MSG_V2
                    | 1L << VhostVdpa.BACKEND_F_IOTLB_BATCH
                    | 1L << VhostVdpa.BACKEND_F_IOTLB_ASID
                    | 1L << VhostVdpa.BACKEND_F_SUSPEND
                    | 1L << VhostVdpa.BACKEND_F_IOTLB_PERSIST;

    /** Where driver and device begin on a packed ring: index 0, wrap counter 1, for both. */
    private static final int PACKED_BASE = 0x8000_8000;

    /** All groups of queues see the same: there is one domain for a device. */
    private static final int ADDRESS_SPACE = 0;

    /** A started queue's counters. */
    private static final class Ring implements AutoCloseable {
        final EventFd kick;
        final EventFd call;

        /** Null as long as nobody waits for calls. */
        EventLoop.Watch watch;

        Ring() throws LinuxException {
            kick = EventFd.create();
            try {
                call = EventFd.create();
            } catch (LinuxException e) {
                kick.close();
                throw e;
            }
        }

        @Override
        public void close() {
            if (watch != null) {
                watch.cancel();
            }
            kick.close();
            call.close();
        }
    }

    private final String address;
    private final VhostVdpa kernel;
    private final long backendFeatures;
    private final int deviceType;
    private final int configSize;
    private final int[] maxQueueSizes;
    private final Ring[] rings;
    private final EventFd configCall;
    private final IovaDomain domain;
    private final AtomicInteger generation = new AtomicInteger();
    private final AtomicBoolean gone = new AtomicBoolean();
    private EventLoop loop;
    private volatile Listener listener;
    private volatile boolean closed;
    private volatile boolean packed;
    private int status;

    /**
     * Takes a device that is open.
     *
     * @param address whole, for people
     * @throws VirtioException in one sentence; the device is closed then
     */
    VhostVdpaTransport(String address, VhostVdpa kernel, long memoryBytes, long pageBytes)
            throws VirtioException {
        this.address = address;
        this.kernel = kernel;
        EventFd counter = null;
        try {
            kernel.setOwner();
            backendFeatures = kernel.backendFeatures() & WANTED;
            if (!has(VhostVdpa.BACKEND_F_IOTLB_MSG_V2)) {
                throw new VirtioException(
                        address + ": vhost-vdpa of this kernel is too old, Linux 5.8 is needed");
            }
            kernel.backendFeatures(backendFeatures);
            groups();
            deviceType = kernel.deviceType();
            configSize = kernel.configSize();
            rings = new Ring[kernel.queueCount()];
            maxQueueSizes = maxQueueSizes();
            long[] range = kernel.iovaRange();
            counter = EventFd.create();
            configCall = counter;
            kernel.configCall(configCall);
            domain =
                    new IovaDomain(
                            address, memoryBytes, pageBytes, range[0], range[1], new Messages());
        } catch (IOException e) {
            if (counter != null) {
                counter.close();
            }
            kernel.close();
            throw e instanceof VirtioException virtio
                    ? virtio
                    : new VirtioException(address + ": " + e.getMessage(), e);
        }
    }

    /**
     * A device with several groups of queues could give each a memory of its own: none gets one.
     */
    private void groups() throws LinuxException {
        int count = has(VhostVdpa.BACKEND_F_IOTLB_ASID) ? kernel.groupCount() : 1;
        for (int group = 0; count > 1 && group < count; group++) {
            kernel.groupAddressSpace(group, ADDRESS_SPACE);
        }
    }

    /** By queue: every kernel has one number for all of them, newer ones one for each. */
    private int[] maxQueueSizes() throws LinuxException {
        int most = kernel.maxQueueSize();
        int[] sizes = new int[rings.length];
        for (int queue = 0; queue < sizes.length; queue++) {
            int own = 0;
            try {
                own = kernel.queueSize(queue);
            } catch (LinuxException e) {
                if (isEnd(e.errno())) {
                    throw e;
                }
            }
            sizes[queue] = Integer.highestOneBit(own > 0 ? Math.min(own, most) : most);
        }
        return sizes;
    }

    private boolean has(int backendFeature) {
        return (backendFeatures & 1L << backendFeature) != 0;
    }

    /** What the device sees is changed by messages to the kernel. */
    private final class Messages implements IovaDomain.Shower {
        @Override
        public void begin() throws LinuxException {
            if (has(VhostVdpa.BACKEND_F_IOTLB_BATCH)) {
                kernel.iotlb(VhostVdpa.Iotlb.BATCH_BEGIN, ADDRESS_SPACE, 0, 0, 0);
            }
        }

        @Override
        public void change(boolean show, long iova, long bytes, long at) throws LinuxException {
            VhostVdpa.Iotlb change = show ? VhostVdpa.Iotlb.UPDATE : VhostVdpa.Iotlb.INVALIDATE;
            kernel.iotlb(change, ADDRESS_SPACE, iova, bytes, at);
        }

        @Override
        public void end() throws LinuxException {
            if (has(VhostVdpa.BACKEND_F_IOTLB_BATCH)) {
                kernel.iotlb(VhostVdpa.Iotlb.BATCH_END, ADDRESS_SPACE, 0, 0, 0);
            }
        }
    }

    @FunctionalInterface
    private interface Ask {
        long run() throws LinuxException;
    }

    @FunctionalInterface
    private interface Tell {
        void run() throws LinuxException;
    }

    private long ask(String what, Ask request) throws VirtioException {
        try {
            return request.run();
        } catch (LinuxException e) {
            VirtioException reason =
                    new VirtioException("%s: %s: %s".formatted(address, what, said(e)), e);
            if (isEnd(e.errno())) {
                gone(reason);
            }
            throw reason;
        }
    }

    private void tell(String what, Tell request) throws VirtioException {
        ask(
                what,
                () -> {
                    request.run();
                    return 0;
                });
    }

    private String said(LinuxException e) {
        if (e.errno() == Errno.EIO) {
            return "the kernel has given the device up, because its server has not answered: "
                    + e.getMessage();
        }
        if (e.errno() == Errno.EFAULT) {
            return "the kernel does not take the memory and says no more; a device that accesses"
                    + " memory by itself needs a limit of locked memory (ulimit -l) above the"
                    + " memoryBytes of virtio.transport.vhostvdpa, and hugePageBytes there, as it"
                    + " takes 2048 pieces: "
                    + e.getMessage();
        }
        return closed ? "the device is closed" : e.getMessage();
    }

    /** Whether nothing can be done with the device after that error. */
    private static boolean isEnd(int errno) {
        return errno == Errno.EIO || errno == Errno.ENODEV || errno == Errno.ENXIO;
    }

    private void gone(VirtioException reason) {
        Listener told = listener;
        if (told != null && !closed && gone.compareAndSet(false, true)) {
            told.gone(reason);
        }
    }

    @Override
    public int deviceType() {
        return deviceType;
    }

    @Override
    public Features offered() throws VirtioException {
        return Features.ofWords(ask("GET_FEATURES", kernel::features)).andNot(NOT_CARRIED);
    }

    @Override
    public void accept(Features features) throws VirtioException {
        Features excess = features.andNot(offered());
        if (!excess.isEmpty()) {
            throw new VirtioException("%s does not offer features %s".formatted(address, excess));
        }
        packed = features.has(Feature.RING_PACKED);
        tell("SET_FEATURES", () -> kernel.features(features.word(0)));
    }

    @Override
    public int status() throws VirtioException {
        return (int) ask("GET_STATUS", kernel::status);
    }

    @Override
    public void status(int value) throws VirtioException {
        if (value == 0) {
            reset();
        } else {
            tell("SET_STATUS " + DeviceStatus.name(value), () -> kernel.status(value));
            status = value;
        }
    }

    /** Returns when the device accesses no memory any more, and sees none. */
    private void reset() throws VirtioException {
        if ((status & DeviceStatus.DRIVER_OK) != 0 && has(VhostVdpa.BACKEND_F_SUSPEND)) {
            try {
                kernel.suspend();
            } catch (LinuxException e) {
                // The reset stops it as well, only less gently.
                LOG.log(Level.DEBUG, "{0}: SUSPEND: {1}", address, e.getMessage());
            }
        }
        tell("SET_STATUS RESET", () -> kernel.status(0));
        status = 0;
        for (int queue = 0; queue < rings.length; queue++) {
            Ring ring = rings[queue];
            if (ring != null) {
                rings[queue] = null;
                int index = queue;
                ring.close();
                tell("SET_VRING_KICK", () -> kernel.vringKick(index, null));
                tell("SET_VRING_CALL", () -> kernel.vringCall(index, null));
            }
        }
        tell("IOTLB_INVALIDATE", domain::hide);
        // A reset takes it away.
        tell("SET_CONFIG_CALL", () -> kernel.configCall(configCall));
    }

    @Override
    public int configGeneration() {
        return generation.get();
    }

    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        checkConfig(offset, into.length);
        tell("GET_CONFIG", () -> kernel.readConfig(offset, into));
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        checkConfig(offset, from.length);
        tell("SET_CONFIG", () -> kernel.writeConfig(offset, from));
    }

    private void checkConfig(int offset, int length) throws VirtioException {
        if (offset < 0 || offset > configSize - length) {
            throw new VirtioException(
                    "%s: no %d bytes of configuration at offset %d, there are %d"
                            .formatted(address, length, offset, configSize));
        }
    }

    @Override
    public int maxQueueSize(int queue) {
        return queue >= 0 && queue < rings.length ? maxQueueSizes[queue] : 0;
    }

    @Override
    public MapToken mapToken(int queue) {
        return domain;
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        if (maxQueueSize(queue) < layout.size()) {
            throw new VirtioException(
                    "%s: queue %d with %d descriptors, limit is %d"
                            .formatted(address, queue, layout.size(), maxQueueSize(queue)));
        }
        if (rings[queue] != null) {
            throw new VirtioException("%s: queue %d is in use already".formatted(address, queue));
        }
        tell("IOTLB_UPDATE", domain::show);
        tell("queue " + queue, () -> start(queue, layout));
    }

    private void start(int queue, QueueLayout layout) throws LinuxException {
        Ring ring = new Ring();
        try {
            kernel.vringNum(queue, layout.size());
            kernel.vringBase(queue, packed ? PACKED_BASE : 0);
            kernel.vringAddresses(
                    queue, layout.descriptorArea(), layout.driverArea(), layout.deviceArea());
            kernel.vringCall(queue, ring.call);
            if (loop != null) {
                ring.watch =
                        loop.watch(
                                ring.call.file(),
                                FileDescriptor.IN,
                                events -> used(queue, ring.call));
            }
            kernel.vringKick(queue, ring.kick);
            kernel.vringEnable(queue, true);
            rings[queue] = ring;
        } catch (LinuxException e) {
            ring.close();
            throw e;
        }
    }

    @Override
    public boolean stopQueue(int queue) {
        return false;
    }

    @Override
    public void notifyQueue(int queue, int data) {
        Ring ring = rings[queue];
        if (ring != null) {
            try {
                ring.kick.signal();
            } catch (LinuxException e) {
                // Closed meanwhile: nobody is there to be told.
            }
        }
    }

    @Override
    public void listen(Listener listener) {
        this.listener = listener;
        if (loop != null) {
            return;
        }
        try {
            loop = EventLoop.start("virtio-" + address);
            loop.watch(configCall.file(), FileDescriptor.IN, events -> configChanged());
        } catch (LinuxException e) {
            gone(new VirtioException(address + ": " + e.getMessage(), e));
        }
    }

    private void used(int queue, EventFd call) {
        if (drain(call)) {
            try {
                listener.queueUsed(queue);
            } catch (RuntimeException e) {
                // One report that is not taken must not be the last one.
                LOG.log(Level.ERROR, address + ": an interrupt was not taken", e);
            }
        }
    }

    private void configChanged() {
        if (drain(configCall)) {
            generation.incrementAndGet();
            listener.configChanged();
        }
    }

    private static boolean drain(EventFd counter) {
        try {
            return counter.drain() != 0;
        } catch (LinuxException e) {
            return false;
        }
    }

    @Override
    public void close() {
        if (closed) {
            return;
        }
        closed = true;
        // First: it resets the device, so that nobody writes to what is given back.
        kernel.close();
        if (loop != null) {
            loop.close();
        }
        configCall.close();
        for (int queue = 0; queue < rings.length; queue++) {
            Ring ring = rings[queue];
            if (ring != null) {
                rings[queue] = null;
                ring.close();
            }
        }
        domain.release();
    }

    @Override
    public String toString() {
        return address;
    }
}
