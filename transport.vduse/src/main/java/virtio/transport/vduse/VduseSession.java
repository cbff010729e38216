package virtio.transport.vduse;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.linux.Epoll;
import virtio.linux.Errno;
import virtio.linux.FileDescriptor;
import virtio.linux.Linux;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * The thread that answers the kernel's requests about one VDUSE device, and what it controls: the
 * driver's memory and the queues.
 *
 * <p>The kernel waits 30 seconds for an answer and then gives the device up for good.
 */
final class VduseSession {
    private static final Logger LOG = System.getLogger(VduseSession.class.getPackageName());

    /** How long until an interrupt is tried again that the kernel does not take yet. */
    private static final int RETRY_MILLIS = 1;

    /** What a driver has written that is up: of a device that is found with queues ready. */
    private static final int UP =
            DeviceStatus.ACKNOWLEDGE
                    | DeviceStatus.DRIVER
                    | DeviceStatus.FEATURES_OK
                    | DeviceStatus.DRIVER_OK;

    private final String address;
    private final String name;
    private final ExportedDevice device;
    private final VduseDevice kernel;
    private final VduseMemory memory;
    private final VduseRing[] rings;
    private Export export;
    private InflightFile inflight;
    private Epoll epoll;
    private Thread thread;
    private boolean accepted;
    private boolean packed;

    /** The configuration that the kernel has. */
    private byte[] told;

    /** The driver is to be notified of a configuration change, once it is up. */
    private boolean configInterruptDue;

    /** The device has said that its configuration has changed. */
    private volatile boolean configChanged;

    /** It did so while the driver was up, which is to hear of it until it resets the device. */
    private volatile boolean changedWhileUp;

    private volatile int status;
    private volatile boolean givenUp;
    private volatile boolean ending;

    /** Owns {@code kernel} from here on. */
    VduseSession(String address, String name, ExportedDevice device, VduseDevice kernel) {
        this.address = address;
        this.name = name;
        this.device = device;
        this.kernel = kernel;
        this.memory = new VduseMemory(address, kernel);
        this.rings = new VduseRing[device.queueCount()];
        Arrays.setAll(rings, index -> new VduseRing(index, device, kernel, address));
    }

    /** All of a device's configuration. */
    static byte[] config(ExportedDevice device) {
        byte[] config = new byte[device.configSize()];
        device.readConfig(0, config);
        return config;
    }

    /**
     * Sees to what must be there before the first request.
     *
     * @param fresh a device just made; else one that somebody has left
     */
    void prepare(Path stateFolder, boolean fresh) throws IOException {
        if (!fresh) {
            // Before anything of it is touched, as another one's requests may be in flight.
            checkSame();
        }
        inflight = InflightFile.open(stateFolder, name, rings.length, device.maxQueueSize(), fresh);
        for (int queue = 0; queue < rings.length; queue++) {
            kernel.setUpQueue(queue, device.maxQueueSize());
        }
        tellConfig();
        epoll = Epoll.create(1);
        epoll.add(kernel.file(), FileDescriptor.IN, 0);
        thread = Thread.ofPlatform().name("virtio-" + address).daemon().unstarted(this::run);
    }

    /**
     * A device that was found has as many queues as this one, features that this one takes where a
     * driver is up, and no less configuration.
     */
    private void checkSame() throws IOException {
        if (!has(rings.length - 1) || has(rings.length)) {
            throw another(null);
        }
        if (isUp()) {
            accept();
        }
        try {
            tellConfig();
        } catch (LinuxException e) {
            throw another(e);
        }
    }

    private boolean has(int queue) throws LinuxException {
        try {
            kernel.queueInfo(queue);
            return true;
        } catch (LinuxException e) {
            if (e.errno() == Errno.EINVAL) {
                return false;
            }
            throw e;
        }
    }

    private VirtioException another(LinuxException cause) {
        return new VirtioException(
                "there is a device of that name, which is another one: as root, vdpa dev del "
                        + name,
                cause);
    }

    /** Goes on where an earlier process has stopped, and serves from here on. */
    void start(Export export) throws IOException {
        this.export = export;
        if (isUp()) {
            if (!inflight.found()) {
                LOG.log(
                        Level.WARNING,
                        "{0}: what an earlier process had in flight is not known, its driver may"
                                + " wait for it",
                        address);
            }
            accept();
            startRings();
            status = UP;
            // Nobody can say what the driver has read.
            configInterruptDue = true;
        }
        thread.start();
    }

    /** Whether a driver has a queue ready. */
    private boolean isUp() throws LinuxException {
        boolean up = false;
        for (int queue = 0; queue < rings.length; queue++) {
            up |= kernel.queueInfo(queue).ready();
        }
        return up;
    }

    int status() {
        return status;
    }

    /** Whether the kernel answers every request for the device with an error, for good. */
    boolean isGivenUp() {
        return givenUp;
    }

    private void run() {
        try {
            while (!ending && !givenUp) {
                int ready = epoll.await(configIsTold() ? -1 : RETRY_MILLIS);
                VduseDevice.Request request;
                while (!ending && (request = kernel.read()) != null) {
                    answer(request);
                }
                givenUp = ready > 0 && (epoll.events(0) & FileDescriptor.ERR) != 0;
            }
            if (givenUp) {
                LOG.log(
                        Level.ERROR,
                        "{0}: the kernel has given the device up, because a request was not"
                                + " answered in time: withdraw it and export it anew",
                        address);
                stopRings();
            }
        } catch (IOException | RuntimeException e) {
            LOG.log(Level.ERROR, address + ": its requests are answered no more", e);
        }
    }

    private void answer(VduseDevice.Request request) throws IOException {
        boolean done = false;
        long state = 0;
        try {
            switch (request.type()) {
                case VduseDevice.SET_STATUS -> setStatus((int) request.argument());
                case VduseDevice.UPDATE_IOTLB -> update(request.argument(), request.last());
                case VduseDevice.GET_VQ_STATE -> state = state((int) request.argument());
                default -> throw new VirtioException("request " + request.type() + " is not known");
            }
            done = true;
        } catch (IOException | IllegalStateException e) {
            LOG.log(Level.WARNING, "{0}: {1}", address, e.getMessage());
        } catch (RuntimeException | InternalError e) {
            // An InternalError is how the JVM says that a driver has cut off its file.
            LOG.log(Level.WARNING, address + ": request " + request.type(), e);
        }
        try {
            kernel.reply(request, done, state);
        } catch (LinuxException e) {
            // Answered too late: the kernel has given up waiting, and the device.
            if (e.errno() != Errno.ENOENT) {
                throw e;
            }
        }
    }

    private void setStatus(int value) throws IOException {
        int added = value & ~status;
        if (tellConfig()) {
            configInterruptDue = true;
        }
        if (value == 0) {
            stopRings();
            device.reset();
            memory.close();
            inflight.clear();
            accepted = false;
            configInterruptDue = false;
            changedWhileUp = false;
        } else if ((added & DeviceStatus.DRIVER_OK) != 0) {
            accept();
            inflight.clear();
            startRings();
        } else if ((added & DeviceStatus.FEATURES_OK) != 0) {
            accept();
        }
        status = value;
    }

    private void accept() throws IOException {
        if (!accepted) {
            Features features = Features.ofWords(kernel.features());
            if (!device.accept(features)) {
                throw new VirtioException("features %s are not acceptable".formatted(features));
            }
            accepted = true;
            packed = features.has(Feature.RING_PACKED);
        }
    }

    /** Starts what is ready, all or nothing. */
    private void startRings() throws IOException {
        try {
            for (int queue = 0; queue < rings.length; queue++) {
                VduseDevice.QueueInfo info = kernel.queueInfo(queue);
                if (info.ready() && !rings[queue].isRunning()) {
                    start(queue, info, VduseDevice.nextAvailable(info.state(), packed));
                }
            }
        } catch (IOException e) {
            stopRings();
            throw e;
        }
    }

    private void start(int queue, VduseDevice.QueueInfo info, int nextAvailable)
            throws VirtioException {
        if (info.size() <= 0 || info.size() > device.maxQueueSize()) {
            throw new VirtioException(
                    "queue %d with %d descriptors, limit is %d"
                            .formatted(queue, info.size(), device.maxQueueSize()));
        }
        rings[queue].start(info, nextAvailable, memory, inflight.queue(queue), export);
    }

    private void stopRings() {
        for (VduseRing ring : rings) {
            ring.stop();
        }
    }

    /** The driver's memory is not what it was: queues stop until all of that is forgotten. */
    private void update(long start, long last) throws IOException {
        if (!memory.meets(start, last)) {
            return;
        }
        boolean[] running = new boolean[rings.length];
        int[] nextAvailable = new int[rings.length];
        for (int queue = 0; queue < rings.length; queue++) {
            running[queue] = rings[queue].isRunning();
            nextAvailable[queue] = rings[queue].stop();
        }
        memory.drop(start, last);
        for (int queue = 0; queue < rings.length; queue++) {
            if (running[queue]) {
                try {
                    start(queue, kernel.queueInfo(queue), nextAvailable[queue]);
                } catch (VirtioException e) {
                    export.queueBroken(queue, e.getMessage());
                }
            }
        }
    }

    /** Where a queue stands; a running one is stopped for that moment. */
    private long state(int queue) throws IOException {
        if (queue < 0 || queue >= rings.length) {
            throw new VirtioException(
                    "state of queue %d, there are %d".formatted(queue, rings.length));
        }
        VduseDevice.QueueInfo info = kernel.queueInfo(queue);
        if (!rings[queue].isRunning()) {
            return info.state();
        }
        int nextAvailable = rings[queue].stop();
        start(queue, info, nextAvailable);
        return VduseDevice.state(nextAvailable, packed);
    }

    void interrupt(int queue) {
        rings[queue].interrupt();
    }

    void schedule(int queue) {
        rings[queue].schedule();
    }

    /** The kernel and a driver that is up are told by the session's thread; from any thread. */
    void configChanged() {
        if ((status & DeviceStatus.DRIVER_OK) != 0) {
            changedWhileUp = true;
        }
        configChanged = true;
        wakeUp();
    }

    private void wakeUp() {
        try {
            epoll.wakeUp();
        } catch (LinuxException e) {
            // It has ended.
        }
    }

    /**
     * Tells the kernel what the configuration is, from where drivers read it; whether it is new.
     */
    private boolean tellConfig() throws LinuxException {
        byte[] now = config(device);
        if (Arrays.equals(now, told)) {
            return false;
        }
        if (now.length > 0) {
            kernel.config(now);
        }
        told = now;
        return true;
    }

    /** Whether nothing is left to be said about a change of the configuration. */
    private boolean configIsTold() {
        try {
            if (configChanged) {
                configChanged = false;
                if (changedWhileUp) {
                    changedWhileUp = false;
                    configInterruptDue = true;
                }
                configInterruptDue |= tellConfig();
            }
            if (configInterruptDue && (status & DeviceStatus.DRIVER_OK) != 0) {
                kernel.configInterrupt();
                configInterruptDue = false;
            }
        } catch (LinuxException e) {
            if (e.errno() == Errno.EINVAL) {
                // The kernel has the answer to DRIVER_OK and has not acted on it yet.
                return false;
            }
            configInterruptDue = false;
            LOG.log(Level.WARNING, "{0}: new configuration: {1}", address, e.getMessage());
        }
        return true;
    }

    /** Serves no more and gives everything back; the device stays, and what is in flight. */
    void end() {
        ending = true;
        if (thread != null && thread.isAlive()) {
            wakeUp();
            Linux.join(thread);
        }
        boolean stopped = true;
        try {
            stopRings();
        } catch (IllegalStateException e) {
            stopped = false;
            LOG.log(Level.ERROR, "{0}: the driver''s memory stays: {1}", address, e.getMessage());
        }
        if (stopped) {
            device.reset();
            memory.close();
            if (inflight != null) {
                inflight.close();
            }
        }
        if (epoll != null) {
            epoll.close();
        }
        kernel.close();
        status = 0;
    }

    /** Removes what is kept of the device, which is no more. */
    void forget() throws IOException {
        if (inflight != null) {
            inflight.delete();
        }
    }
}
