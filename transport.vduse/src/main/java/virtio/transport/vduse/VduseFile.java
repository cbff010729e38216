package virtio.transport.vduse;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;

/**
 * The character device of a VDUSE device: requests and structures of include/uapi/linux/vduse.h.
 */
final class VduseFile implements VduseDevice {
    static final int IOTLB_GET_FD = VduseControl.ioc(3, 0x10, 32);
    static final int DEV_GET_FEATURES = VduseControl.ioc(2, 0x11, 8);
    static final int DEV_SET_CONFIG = VduseControl.ioc(1, 0x12, 8);
    static final int DEV_INJECT_CONFIG_IRQ = VduseControl.ioc(0, 0x13, 0);
    static final int VQ_SETUP = VduseControl.ioc(1, 0x14, 32);
    static final int VQ_GET_INFO = VduseControl.ioc(3, 0x15, 48);
    static final int VQ_SETUP_KICKFD = VduseControl.ioc(1, 0x16, 8);
    static final int VQ_INJECT_IRQ = VduseControl.ioc(1, 0x17, 4);

    /*
     * struct vduse_dev_request               struct vduse_dev_response
     *
     *   0  type                                0  id
     *   4  id                                  4  result
     *  24  queue, status or first address     24  queue
     *  32  last address                       28  state
     * 152  end                               152  end
     */
    private static final int MESSAGE_BYTES = 152;
    private static final int PAYLOAD = 24;
    private static final int RESULT_FAILED = 1;

    private static final int CONFIG_HEADER_BYTES = 8;

    private final FileDescriptor file;
    private final MemorySegment argument = Arena.ofAuto().allocate(MESSAGE_BYTES, 8);
    private final MemorySegment entry = Arena.ofAuto().allocate(32, 8);

    /** By queue: its number, for {@link #interrupt}. */
    private final MemorySegment[] numbers;

    private VduseFile(FileDescriptor file, int queues) {
        this.file = file;
        numbers = new MemorySegment[queues];
        for (int queue = 0; queue < queues; queue++) {
            numbers[queue] = Arena.ofAuto().allocateFrom(JAVA_INT, queue);
        }
    }

    static VduseDevice open(Path path, int queues) throws LinuxException {
        int flags = FileDescriptor.O_RDWR | FileDescriptor.O_NONBLOCK;
        return new VduseFile(FileDescriptor.open(path, flags), queues);
    }

    @Override
    public FileDescriptor file() {
        return file;
    }

    @Override
    public Request read() throws LinuxException {
        try {
            file.read(argument);
        } catch (LinuxException e) {
            if (e.errno() == Errno.EAGAIN) {
                return null;
            }
            throw e;
        }
        int type = argument.get(JAVA_INT, 0);
        long first =
                switch (type) {
                    case GET_VQ_STATE -> argument.get(JAVA_INT, PAYLOAD);
                    case SET_STATUS -> argument.get(JAVA_BYTE, PAYLOAD) & 0xFF;
                    default -> argument.get(JAVA_LONG, PAYLOAD);
                };
        return new Request(
                type, argument.get(JAVA_INT, 4), first, argument.get(JAVA_LONG, PAYLOAD + 8));
    }

    @Override
    public void reply(Request request, boolean done, long state) throws LinuxException {
        argument.fill((byte) 0);
        argument.set(JAVA_INT, 0, request.id());
        argument.set(JAVA_INT, 4, done ? 0 : RESULT_FAILED);
        if (request.type() == GET_VQ_STATE) {
            argument.set(JAVA_INT, PAYLOAD, (int) request.argument());
            argument.set(JAVA_LONG_UNALIGNED, PAYLOAD + 4, state);
        }
        file.write(argument);
    }

    @Override
    public long features() throws LinuxException {
        file.ioctl(DEV_GET_FEATURES, argument);
        return argument.get(JAVA_LONG, 0);
    }

    @Override
    public void config(byte[] config) throws LinuxException {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment data = arena.allocate(CONFIG_HEADER_BYTES + config.length, 4);
            data.set(JAVA_INT, 4, config.length);
            MemorySegment.copy(config, 0, data, JAVA_BYTE, CONFIG_HEADER_BYTES, config.length);
            file.ioctl(DEV_SET_CONFIG, data);
        }
    }

    @Override
    public void configInterrupt() throws LinuxException {
        file.ioctl(DEV_INJECT_CONFIG_IRQ, 0);
    }

    @Override
    public void setUpQueue(int queue, int maxSize) throws LinuxException {
        argument.fill((byte) 0);
        argument.set(JAVA_INT, 0, queue);
        argument.set(JAVA_SHORT, 4, (short) maxSize);
        file.ioctl(VQ_SETUP, argument);
    }

    @Override
    public QueueInfo queueInfo(int queue) throws LinuxException {
        argument.fill((byte) 0);
        argument.set(JAVA_INT, 0, queue);
        file.ioctl(VQ_GET_INFO, argument);
        return new QueueInfo(
                argument.get(JAVA_INT, 4),
                argument.get(JAVA_LONG, 8),
                argument.get(JAVA_LONG, 16),
                argument.get(JAVA_LONG, 24),
                argument.get(JAVA_LONG, 32),
                argument.get(JAVA_BYTE, 40) != 0);
    }

    @Override
    public void kick(int queue, EventFd kick) throws LinuxException {
        argument.set(JAVA_INT, 0, queue);
        argument.set(JAVA_INT, 4, kick.file().fd());
        file.ioctl(VQ_SETUP_KICKFD, argument);
    }

    @Override
    public void interrupt(int queue) throws LinuxException {
        file.ioctl(VQ_INJECT_IRQ, numbers[queue]);
    }

    @Override
    public Region region(long start, long last) throws LinuxException {
        synchronized (entry) {
            // struct vduse_iotlb_entry: offset, start, last, permission.
            entry.set(JAVA_LONG, 0, 0);
            entry.set(JAVA_LONG, 8, start);
            entry.set(JAVA_LONG, 16, last);
            entry.set(JAVA_LONG, 24, 0);
            int fd;
            try {
                fd = file.ioctl(IOTLB_GET_FD, entry);
            } catch (LinuxException e) {
                if (e.errno() == Errno.EINVAL) {
                    return null;
                }
                throw e;
            }
            return new Region(
                    FileDescriptor.of(fd, "vduse-iotlb"),
                    entry.get(JAVA_LONG, 0),
                    entry.get(JAVA_LONG, 8),
                    entry.get(JAVA_LONG, 16),
                    entry.get(JAVA_BYTE, 24));
        }
    }

    @Override
    public void close() {
        file.close();
    }
}
