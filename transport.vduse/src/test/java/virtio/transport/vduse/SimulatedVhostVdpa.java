package virtio.transport.vduse;

import virtio.api.DeviceStatus;
import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.EventLoop;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.TreeMap;

/** A vhost-vdpa file that is open in the {@link SimulatedKernel}. */
final class SimulatedVhostVdpa implements VhostVdpa {
    private final SimulatedKernel kernel;
    private final SimulatedVduse device;
    private final TreeMap<Long, SimulatedVduse.Entry> iotlb = new TreeMap<>();
    private final EventLoop kicks;
    private final EventFd[] kick;
    private final EventLoop.Watch[] watches;
    private boolean owned;
    private boolean inBatch;
    private long backendFeatures;
    private volatile boolean closed;

    SimulatedVhostVdpa(SimulatedKernel kernel, SimulatedVduse device) throws LinuxException {
        this.kernel = kernel;
        this.device = device;
        device.hold();
        kick = new EventFd[device.queues.length];
        watches = new EventLoop.Watch[device.queues.length];
        try {
            kicks = EventLoop.start("simulated-vhost");
        } catch (LinuxException e) {
            device.letGo();
            throw e;
        }
        try {
            device.reset();
        } catch (LinuxException e) {
            close();
            throw e;
        }
    }

    private void check(String call) throws LinuxException {
        if (closed) {
            throw SimulatedKernel.error(call, Errno.EBADF);
        }
    }

    private SimulatedKernel.Queue queue(String call, int index) throws LinuxException {
        check(call);
        if (!owned) {
            throw SimulatedKernel.error(call, Errno.EPERM);
        }
        if (index < 0 || index >= device.queues.length) {
            throw SimulatedKernel.error(call, Errno.ENOBUFS);
        }
        return device.queues[index];
    }

    @Override
    public void setOwner() throws LinuxException {
        check("SET_OWNER");
        if (owned) {
            throw SimulatedKernel.error("SET_OWNER", Errno.EBUSY);
        }
        owned = true;
    }

    @Override
    public long backendFeatures() throws LinuxException {
        check("GET_BACKEND_FEATURES");
        return kernel.backendFeatures;
    }

    @Override
    public void backendFeatures(long bits) throws LinuxException {
        check("SET_BACKEND_FEATURES");
        if ((bits & ~kernel.backendFeatures) != 0) {
            throw SimulatedKernel.error("SET_BACKEND_FEATURES", Errno.EOPNOTSUPP);
        }
        backendFeatures = bits;
        kernel.driverSaid.add("SET_BACKEND_FEATURES %#x".formatted(bits));
    }

    @Override
    public int deviceType() throws LinuxException {
        check("GET_DEVICE_ID");
        return device.deviceType;
    }

    @Override
    public long features() throws LinuxException {
        check("GET_FEATURES");
        return device.features;
    }

    @Override
    public void features(long bits) throws LinuxException {
        check("SET_FEATURES");
        if ((device.status() & DeviceStatus.FEATURES_OK) != 0) {
            throw SimulatedKernel.error("SET_FEATURES", Errno.EBUSY);
        }
        device.driverFeatures(bits);
    }

    @Override
    public int status() throws LinuxException {
        check("GET_STATUS");
        return device.status();
    }

    @Override
    public void status(int value) throws LinuxException {
        check("SET_STATUS");
        if (value != 0 && (device.status() & ~value) != 0) {
            throw SimulatedKernel.error("SET_STATUS", Errno.EINVAL);
        }
        kernel.driverSaid.add("SET_STATUS %#x".formatted(value));
        if (value == 0) {
            device.reset();
        } else {
            device.writeStatus(value);
        }
    }

    @Override
    public int configSize() throws LinuxException {
        check("GET_CONFIG_SIZE");
        return device.config().length;
    }

    @Override
    public void readConfig(int offset, byte[] into) throws LinuxException {
        check("GET_CONFIG");
        byte[] config = device.config();
        if (into.length == 0 || offset < 0 || offset > config.length) {
            throw SimulatedKernel.error("GET_CONFIG", Errno.EINVAL);
        }
        if (into.length > config.length - offset) {
            throw SimulatedKernel.error("GET_CONFIG", Errno.E2BIG);
        }
        System.arraycopy(config, offset, into, 0, into.length);
    }

    /** A VDUSE device's configuration is read-only: that is ignored. */
    @Override
    public void writeConfig(int offset, byte[] from) throws LinuxException {
        check("SET_CONFIG");
    }

    @Override
    public void configCall(EventFd call) throws LinuxException {
        check("SET_CONFIG_CALL");
        device.configCall(call);
    }

    @Override
    public long[] iovaRange() throws LinuxException {
        check("GET_IOVA_RANGE");
        return new long[] {0, -1};
    }

    @Override
    public int queueCount() throws LinuxException {
        check("GET_VQS_COUNT");
        return device.queues.length;
    }

    @Override
    public int maxQueueSize() throws LinuxException {
        check("GET_VRING_NUM");
        return Arrays.stream(device.queues).mapToInt(queue -> queue.maxSize).max().orElse(0);
    }

    @Override
    public int queueSize(int queue) throws LinuxException {
        SimulatedKernel.Queue of = queue("GET_VRING_SIZE", queue);
        return of.size != 0 ? of.size : of.maxSize;
    }

    @Override
    public int groupCount() throws LinuxException {
        check("GET_GROUP_NUM");
        return kernel.groups;
    }

    @Override
    public void groupAddressSpace(int group, int addressSpace) throws LinuxException {
        check("SET_GROUP_ASID");
        if (kernel.groups == 1) {
            throw SimulatedKernel.error("SET_GROUP_ASID", Errno.EOPNOTSUPP);
        }
        if (group < 0 || group >= kernel.groups || addressSpace < 0) {
            throw SimulatedKernel.error("SET_GROUP_ASID", Errno.EINVAL);
        }
        kernel.driverSaid.add("SET_GROUP_ASID %d %d".formatted(group, addressSpace));
    }

    @Override
    public void vringNum(int queue, int size) throws LinuxException {
        SimulatedKernel.Queue of = queue("SET_VRING_NUM", queue);
        if (size <= 0 || size > 0xFFFF || Integer.bitCount(size) != 1) {
            throw SimulatedKernel.error("SET_VRING_NUM", Errno.EINVAL);
        }
        of.size = size;
    }

    @Override
    public void vringBase(int queue, int base) throws LinuxException {
        queue("SET_VRING_BASE", queue).base = base;
    }

    @Override
    public void vringAddresses(int queue, long descriptorArea, long driverArea, long deviceArea)
            throws LinuxException {
        SimulatedKernel.Queue of = queue("SET_VRING_ADDR", queue);
        if (descriptorArea % 16 != 0 || driverArea % 2 != 0 || deviceArea % 4 != 0) {
            throw SimulatedKernel.error("SET_VRING_ADDR", Errno.EINVAL);
        }
        of.descriptorArea = descriptorArea;
        of.driverArea = driverArea;
        of.deviceArea = deviceArea;
    }

    @Override
    public void vringKick(int queue, EventFd counter) throws LinuxException {
        queue("SET_VRING_KICK", queue);
        unwatch(queue);
        EventFd own = SimulatedKernel.dup(counter);
        kick[queue] = own;
        if (own != null) {
            watches[queue] =
                    kicks.watch(own.file(), FileDescriptor.IN, events -> kicked(queue, own));
        }
    }

    private void kicked(int queue, EventFd own) {
        try {
            if (own.drain() != 0) {
                device.kick(queue);
            }
        } catch (LinuxException e) {
            // The server is gone, and its counter.
        }
    }

    private void unwatch(int queue) {
        if (watches[queue] != null) {
            watches[queue].close();
            watches[queue] = null;
        }
        SimulatedKernel.close(kick[queue]);
        kick[queue] = null;
    }

    @Override
    public void vringCall(int queue, EventFd call) throws LinuxException {
        SimulatedKernel.Queue of = queue("SET_VRING_CALL", queue);
        EventFd own = SimulatedKernel.dup(call);
        synchronized (device) {
            SimulatedKernel.close(of.call);
            of.call = own;
        }
    }

    @Override
    public void vringEnable(int queue, boolean enable) throws LinuxException {
        SimulatedKernel.Queue of = queue("SET_VRING_ENABLE", queue);
        synchronized (device) {
            of.ready = enable;
        }
    }

    @Override
    public void iotlb(Iotlb change, int addressSpace, long iova, long bytes, long address)
            throws LinuxException {
        check("write");
        if (!owned) {
            throw SimulatedKernel.error("write", Errno.EFAULT);
        }
        boolean batching = (backendFeatures & 1L << BACKEND_F_IOTLB_BATCH) != 0;
        if (addressSpace != 0 || !batching && change.type >= Iotlb.BATCH_BEGIN.type) {
            throw SimulatedKernel.error("write", Errno.EFAULT);
        }
        switch (change) {
            case BATCH_BEGIN -> inBatch = true;
            case BATCH_END -> {
                inBatch = false;
                device.map(iotlb.values());
            }
            case UPDATE -> show(iova, bytes, address);
            case INVALIDATE -> hide(iova, bytes);
        }
    }

    private void show(long iova, long bytes, long address) throws LinuxException {
        if (bytes <= 0 || iova < 0 || iova > Long.MAX_VALUE - bytes) {
            throw SimulatedKernel.error("IOTLB_UPDATE", Errno.EFAULT);
        }
        var before = iotlb.floorEntry(iova + bytes - 1);
        if (before != null && before.getValue().last() >= iova) {
            throw SimulatedKernel.error("IOTLB_UPDATE", Errno.EFAULT);
        }
        if (bytes > kernel.lockableBytes) {
            throw SimulatedKernel.error("IOTLB_UPDATE", Errno.EFAULT);
        }
        iotlb.put(iova, backing(iova, bytes, address));
        changed();
    }

    private void hide(long iova, long bytes) throws LinuxException {
        long last = iova + bytes - 1;
        iotlb.values()
                .removeIf(
                        entry -> {
                            boolean meets = entry.start() <= last && entry.last() >= iova;
                            if (meets) {
                                entry.file().close();
                            }
                            return meets;
                        });
        changed();
    }

    private void changed() throws LinuxException {
        if (!inBatch) {
            device.map(iotlb.values());
        }
    }

    /** The shared file behind an address of this process: the kernel shows nothing else. */
    private static SimulatedVduse.Entry backing(long iova, long bytes, long address)
            throws LinuxException {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/self/maps"))) {
                String[] fields = line.split(" +", 6);
                String[] range = fields[0].split("-");
                long start = Long.parseUnsignedLong(range[0], 16);
                long end = Long.parseUnsignedLong(range[1], 16);
                if (Long.compareUnsigned(address, start) < 0
                        || Long.compareUnsigned(address, end) >= 0) {
                    continue;
                }
                if (fields[1].endsWith("s") && Long.compareUnsigned(address + bytes, end) <= 0) {
                    long offset = Long.parseUnsignedLong(fields[2], 16) + (address - start);
                    long inode = Long.parseLong(fields[4]);
                    return new SimulatedVduse.Entry(
                            open(inode), offset, iova, iova + bytes - 1, ACCESS_RW);
                }
            }
        } catch (LinuxException e) {
            throw e;
        } catch (IOException e) {
            throw new AssertionError(e);
        }
        throw SimulatedKernel.error("IOTLB_UPDATE", Errno.EFAULT);
    }

    private static FileDescriptor open(long inode) throws IOException {
        try (DirectoryStream<Path> fds = Files.newDirectoryStream(Path.of("/proc/self/fd"))) {
            for (Path fd : fds) {
                if (Files.exists(fd)
                        || Files.readSymbolicLink(fd).toString().startsWith("/memfd:")) {
                    if (isInode(fd, inode)) {
                        return FileDescriptor.open(fd, FileDescriptor.O_RDWR);
                    }
                }
            }
        }
        throw SimulatedKernel.error("IOTLB_UPDATE", Errno.EFAULT);
    }

    private static boolean isInode(Path fd, long inode) {
        try {
            return Files.readSymbolicLink(fd).toString().startsWith("/memfd:")
                    && (long) Files.getAttribute(fd, "unix:ino") == inode;
        } catch (IOException e) {
            return false;
        }
    }

    @Override
    public void suspend() throws LinuxException {
        check("SUSPEND");
        if ((kernel.backendFeatures & 1L << BACKEND_F_SUSPEND) == 0) {
            throw SimulatedKernel.error("SUSPEND", Errno.EOPNOTSUPP);
        }
        kernel.driverSaid.add("SUSPEND");
    }

    @Override
    public void close() {
        if (closed) {
            return;
        }
        closed = true;
        try {
            device.reset();
        } catch (LinuxException e) {
            // A server that does not answer holds up nobody's close.
        }
        for (int queue = 0; queue < watches.length; queue++) {
            unwatch(queue);
        }
        kicks.close();
        iotlb.values().forEach(entry -> entry.file().close());
        iotlb.clear();
        device.letGo();
    }
}
