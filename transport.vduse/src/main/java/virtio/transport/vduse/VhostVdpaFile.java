package virtio.transport.vduse;

import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;

/**
 * The character device of vhost-vdpa: requests and structures of include/uapi/linux/vhost.h and
 * vhost_types.h.
 */
final class VhostVdpaFile implements VhostVdpa {
    static final int GET_FEATURES = ior(0x00, 8);
    static final int SET_FEATURES = iow(0x00, 8);
    static final int SET_OWNER = io(0x01);
    static final int SET_VRING_NUM = iow(0x10, 8);
    static final int SET_VRING_ADDR = iow(0x11, 40);
    static final int SET_VRING_BASE = iow(0x12, 8);
    static final int SET_VRING_KICK = iow(0x20, 8);
    static final int SET_VRING_CALL = iow(0x21, 8);
    static final int SET_BACKEND_FEATURES = iow(0x25, 8);
    static final int GET_BACKEND_FEATURES = ior(0x26, 8);
    static final int GET_DEVICE_ID = ior(0x70, 4);
    static final int GET_STATUS = ior(0x71, 1);
    static final int SET_STATUS = iow(0x72, 1);
    static final int GET_CONFIG = ior(0x73, 8);
    static final int SET_CONFIG = iow(0x74, 8);
    static final int SET_VRING_ENABLE = iow(0x75, 8);
    static final int GET_VRING_NUM = ior(0x76, 2);
    static final int SET_CONFIG_CALL = iow(0x77, 4);
    static final int GET_IOVA_RANGE = ior(0x78, 16);
    static final int GET_CONFIG_SIZE = ior(0x79, 4);
    static final int SET_GROUP_ASID = iow(0x7C, 8);
    static final int SUSPEND = io(0x7D);
    static final int GET_VQS_COUNT = ior(0x80, 4);
    static final int GET_GROUP_NUM = ior(0x81, 4);
    static final int GET_VRING_SIZE = iowr(0x82, 8);

    /** struct vhost_vdpa_config: offset and length, then the bytes. */
    private static final int CONFIG_HEADER_BYTES = 8;

    /*
     * struct vhost_msg_v2, without the process's word for a message: what is written.
     *
     *   0  type    8  iova   24  address in this process   33  change
     *   4  asid   16  bytes  32  permission                72  end
     */
    private static final int IOTLB_MSG_V2 = 2;
    private static final int IOTLB_MSG_BYTES = 72;

    private final FileDescriptor file;
    private final MemorySegment argument = Arena.ofAuto().allocate(64, 8);
    private final MemorySegment message = Arena.ofAuto().allocate(IOTLB_MSG_BYTES, 8);

    private VhostVdpaFile(FileDescriptor file) {
        this.file = file;
    }

    /** Opens the device, which resets it; EBUSY when somebody else has it open. */
    static VhostVdpa open(Path path) throws LinuxException {
        return new VhostVdpaFile(FileDescriptor.open(path, FileDescriptor.O_RDWR));
    }

    /* _IO, _IOR, _IOW and _IOWR of include/uapi/asm-generic/ioctl.h, type VHOST_VIRTIO. */

    private static int io(int number) {
        return 0xAF << 8 | number;
    }

    private static int ior(int number, int bytes) {
        return 2 << 30 | bytes << 16 | io(number);
    }

    private static int iow(int number, int bytes) {
        return 1 << 30 | bytes << 16 | io(number);
    }

    private static int iowr(int number, int bytes) {
        return 3 << 30 | bytes << 16 | io(number);
    }

    private int int32(int request) throws LinuxException {
        file.ioctl(request, argument);
        return argument.get(ValueLayout.JAVA_INT, 0);
    }

    private long int64(int request) throws LinuxException {
        file.ioctl(request, argument);
        return argument.get(ValueLayout.JAVA_LONG, 0);
    }

    private void int64(int request, long value) throws LinuxException {
        argument.set(ValueLayout.JAVA_LONG, 0, value);
        file.ioctl(request, argument);
    }

    /** struct vhost_vring_state and struct vhost_vring_file: an index and a number. */
    private void state(int request, int index, int number) throws LinuxException {
        argument.set(ValueLayout.JAVA_INT, 0, index);
        argument.set(ValueLayout.JAVA_INT, 4, number);
        file.ioctl(request, argument);
    }

    @Override
    public void setOwner() throws LinuxException {
        file.ioctl(SET_OWNER, 0);
    }

    @Override
    public long backendFeatures() throws LinuxException {
        return int64(GET_BACKEND_FEATURES);
    }

    @Override
    public void backendFeatures(long bits) throws LinuxException {
        int64(SET_BACKEND_FEATURES, bits);
    }

    @Override
    public int deviceType() throws LinuxException {
        return int32(GET_DEVICE_ID);
    }

    @Override
    public long features() throws LinuxException {
        return int64(GET_FEATURES);
    }

    @Override
    public void features(long bits) throws LinuxException {
        int64(SET_FEATURES, bits);
    }

    @Override
    public int status() throws LinuxException {
        file.ioctl(GET_STATUS, argument);
        return argument.get(ValueLayout.JAVA_BYTE, 0) & 0xFF;
    }

    @Override
    public void status(int value) throws LinuxException {
        argument.set(ValueLayout.JAVA_BYTE, 0, (byte) value);
        file.ioctl(SET_STATUS, argument);
    }

    @Override
    public int configSize() throws LinuxException {
        return int32(GET_CONFIG_SIZE);
    }

    @Override
    public void readConfig(int offset, byte[] into) throws LinuxException {
        try (Arena confined = Arena.ofConfined()) {
            MemorySegment config = config(confined, offset, into.length);
            file.ioctl(GET_CONFIG, config);
            MemorySegment.ofArray(into).copyFrom(config.asSlice(CONFIG_HEADER_BYTES, into.length));
        }
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws LinuxException {
        try (Arena confined = Arena.ofConfined()) {
            MemorySegment config = config(confined, offset, from.length);
            MemorySegment.copy(
                    from, 0, config, ValueLayout.JAVA_BYTE, CONFIG_HEADER_BYTES, from.length);
            file.ioctl(SET_CONFIG, config);
        }
    }

    private static MemorySegment config(Arena arena, int offset, int length) {
        MemorySegment config = arena.allocate(CONFIG_HEADER_BYTES + length, 4);
        config.set(ValueLayout.JAVA_INT, 0, offset);
        config.set(ValueLayout.JAVA_INT, 4, length);
        return config;
    }

    @Override
    public void configCall(EventFd call) throws LinuxException {
        argument.set(ValueLayout.JAVA_INT, 0, call.file().fd());
        file.ioctl(SET_CONFIG_CALL, argument);
    }

    @Override
    public long[] iovaRange() throws LinuxException {
        file.ioctl(GET_IOVA_RANGE, argument);
        return new long[] {
            argument.get(ValueLayout.JAVA_LONG, 0), argument.get(ValueLayout.JAVA_LONG, 8)
        };
    }

    @Override
    public int queueCount() throws LinuxException {
        return int32(GET_VQS_COUNT);
    }

    @Override
    public int maxQueueSize() throws LinuxException {
        file.ioctl(GET_VRING_NUM, argument);
        return argument.get(ValueLayout.JAVA_SHORT, 0) & 0xFFFF;
    }

    @Override
    public int queueSize(int queue) throws LinuxException {
        state(GET_VRING_SIZE, queue, 0);
        return argument.get(ValueLayout.JAVA_INT, 4);
    }

    @Override
    public int groupCount() throws LinuxException {
        return int32(GET_GROUP_NUM);
    }

    @Override
    public void groupAddressSpace(int group, int addressSpace) throws LinuxException {
        state(SET_GROUP_ASID, group, addressSpace);
    }

    @Override
    public void vringNum(int queue, int size) throws LinuxException {
        state(SET_VRING_NUM, queue, size);
    }

    @Override
    public void vringBase(int queue, int base) throws LinuxException {
        state(SET_VRING_BASE, queue, base);
    }

    @Override
    public void vringAddresses(int queue, long descriptorArea, long driverArea, long deviceArea)
            throws LinuxException {
        // struct vhost_vring_addr: index, flags, descriptors, used, available, log.
        argument.set(ValueLayout.JAVA_INT, 0, queue);
        argument.set(ValueLayout.JAVA_INT, 4, 0);
        argument.set(ValueLayout.JAVA_LONG, 8, descriptorArea);
        argument.set(ValueLayout.JAVA_LONG, 16, deviceArea);
        argument.set(ValueLayout.JAVA_LONG, 24, driverArea);
        argument.set(ValueLayout.JAVA_LONG, 32, 0);
        file.ioctl(SET_VRING_ADDR, argument);
    }

    @Override
    public void vringKick(int queue, EventFd kick) throws LinuxException {
        state(SET_VRING_KICK, queue, number(kick));
    }

    @Override
    public void vringCall(int queue, EventFd call) throws LinuxException {
        state(SET_VRING_CALL, queue, number(call));
    }

    private static int number(EventFd counter) {
        return counter == null ? -1 : counter.file().fd();
    }

    @Override
    public void vringEnable(int queue, boolean enable) throws LinuxException {
        state(SET_VRING_ENABLE, queue, enable ? 1 : 0);
    }

    @Override
    public void iotlb(Iotlb change, int addressSpace, long iova, long bytes, long address)
            throws LinuxException {
        message.fill((byte) 0);
        message.set(ValueLayout.JAVA_INT, 0, IOTLB_MSG_V2);
        message.set(ValueLayout.JAVA_INT, 4, addressSpace);
        message.set(ValueLayout.JAVA_LONG, 8, iova);
        message.set(ValueLayout.JAVA_LONG, 16, bytes);
        message.set(ValueLayout.JAVA_LONG, 24, address);
        message.set(ValueLayout.JAVA_BYTE, 32, (byte) ACCESS_RW);
        message.set(ValueLayout.JAVA_BYTE, 33, (byte) change.type);
        file.write(message);
    }

    @Override
    public void suspend() throws LinuxException {
        file.ioctl(SUSPEND, 0);
    }

    @Override
    public void close() {
        file.close();
    }
}
