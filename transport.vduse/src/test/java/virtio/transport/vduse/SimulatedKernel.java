package virtio.transport.vduse;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.LinuxException;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The kernel between both ends, after vduse_dev.c and vdpa.c of Linux 6.12: its rules about status,
 * addresses and permissions, its waiting for answers, its errors.
 */
final class SimulatedKernel implements Vduse {
    /** How long the kernel waits for an answer, less than its 30 seconds. */
    volatile long messageTimeoutMillis = 10_000;

    /** What happens between the answer to a new status and the kernel's acting on it. */
    volatile Runnable beforeStatus = () -> {};

    /** Whether the server may put devices on the bus. */
    volatile boolean mayManage = true;

    /** Names on the bus of devices that are no VDUSE ones. */
    final Set<String> others = ConcurrentHashMap.newKeySet();

    /** Whether the server sees the bus. */
    volatile boolean showsBus = true;

    /** How much a driver may show to a device at once. */
    volatile long lockableBytes = Long.MAX_VALUE;

    /** Groups of queues that a device has. */
    volatile int groups = 1;

    /** What vhost-vdpa can do with a device. */
    volatile long backendFeatures =
            1L << VhostVdpa.BACKEND_F_IOTLB_MSG_V2
                    | 1L << VhostVdpa.BACKEND_F_IOTLB_BATCH
                    | 1L << VhostVdpa.BACKEND_F_IOTLB_ASID;

    /** Requests of a driver's that change more than a queue or memory, in their order. */
    final List<String> driverSaid = new CopyOnWriteArrayList<>();

    /** Interrupts that were refused, as no driver was up. */
    final AtomicInteger refusedInterrupts = new AtomicInteger();

    private final Map<String, SimulatedVduse> devices = new HashMap<>();

    static LinuxException error(String call, int errno) {
        return new LinuxException(call, "simulated", errno);
    }

    @Override
    public String unavailable() {
        return null;
    }

    synchronized SimulatedVduse device(String name) {
        return devices.get(name);
    }

    private SimulatedVduse need(String name) throws LinuxException {
        SimulatedVduse device = device(name);
        if (device == null) {
            throw new LinuxException("open", name, Errno.ENOENT);
        }
        return device;
    }

    @Override
    public boolean exists(String name) {
        return device(name) != null;
    }

    @Override
    public synchronized void create(
            String name, int deviceType, long features, int queues, byte[] config)
            throws LinuxException {
        boolean blk = deviceType == DeviceType.BLOCK;
        boolean bad =
                !blk && deviceType != DeviceType.NETWORK
                        || (features & 1L << Feature.ACCESS_PLATFORM) == 0
                        || blk && (features & 1L << 11) != 0
                        || !blk && (features & 1L << 17) != 0
                        || config.length > 4096;
        if (bad) {
            throw error("CREATE_DEV", Errno.EINVAL);
        }
        if (devices.containsKey(name)) {
            throw error("CREATE_DEV", Errno.EEXIST);
        }
        devices.put(name, new SimulatedVduse(this, name, deviceType, features, queues, config));
    }

    @Override
    public VduseDevice open(String name, int queues) throws LinuxException {
        return need(name).open();
    }

    @Override
    public synchronized void destroy(String name) throws LinuxException {
        SimulatedVduse device = devices.get(name);
        if (device == null) {
            throw error("DESTROY_DEV", Errno.EINVAL);
        }
        device.destroy();
        devices.remove(name);
    }

    @Override
    public void addToBus(String name) throws LinuxException {
        if (!mayManage) {
            throw new LinuxException("vdpa dev add", name, Errno.EPERM);
        }
        SimulatedVduse device = need(name);
        if (others.contains(name)) {
            throw new LinuxException("vdpa dev add", name, Errno.EEXIST);
        }
        device.addToBus();
    }

    @Override
    public void removeFromBus(String name) throws LinuxException {
        if (!others.remove(name)) {
            need(name).removeFromBus();
        }
    }

    @Override
    public boolean isAnother(String name) {
        return showsBus && others.contains(name);
    }

    @Override
    public String driver(String name) {
        SimulatedVduse device = device(name);
        return device == null || !device.isOnBus() ? null : "vhost_vdpa";
    }

    /** As opening its vhost-vdpa file. */
    VhostVdpa openVhostVdpa(String name) throws LinuxException {
        SimulatedVduse device = device(name);
        if (device == null || !device.isOnBus()) {
            throw new LinuxException("open", name, Errno.ENOENT);
        }
        return new SimulatedVhostVdpa(this, device);
    }

    /** What is told about a queue. */
    static final class Queue {
        int maxSize = 256;
        int size;
        long descriptorArea;
        long driverArea;
        long deviceArea;
        int base;
        boolean ready;
        EventFd kick;
        EventFd call;
        boolean kicked;

        void reset() {
            size = 0;
            descriptorArea = 0;
            driverArea = 0;
            deviceArea = 0;
            base = 0;
            ready = false;
            kicked = false;
            close(kick);
            close(call);
            kick = null;
            call = null;
        }
    }

    static void close(EventFd counter) {
        if (counter != null) {
            counter.close();
        }
    }

    /** A counter of one's own on the same file, or null. */
    static EventFd dup(EventFd counter) throws LinuxException {
        return counter == null ? null : EventFd.of(counter.file().dup());
    }

    static void signal(EventFd counter) throws LinuxException {
        if (counter != null) {
            counter.signal();
        }
    }

    /** Whether the driver is up. */
    static boolean isUp(int status) {
        return (status & DeviceStatus.DRIVER_OK) != 0;
    }

    static Queue[] queues(int count) {
        Queue[] queues = new Queue[count];
        Arrays.setAll(queues, index -> new Queue());
        return queues;
    }

    /** Ends of both kinds are closed: nothing of theirs is left. */
    synchronized void close() {
        devices.values().forEach(SimulatedVduse::discard);
        devices.clear();
    }
}
