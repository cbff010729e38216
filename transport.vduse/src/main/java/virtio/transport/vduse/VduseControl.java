package virtio.transport.vduse;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import virtio.linux.FileDescriptor;
import virtio.linux.Linux;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** /dev/vduse/control, and the management of the vDPA bus (include/uapi/linux/vduse.h). */
final class VduseControl implements Vduse {
    static final Path FOLDER = Path.of("/dev/vduse");
    static final Path CONTROL = FOLDER.resolve("control");

    static final int SET_API_VERSION = ioc(1, 0x01, 8);
    static final int CREATE_DEV = ioc(1, 0x02, 336);
    static final int DESTROY_DEV = ioc(1, 0x03, 256);

    /** VDUSE_NAME_MAX, the end of the string included. */
    static final int MAX_NAME_BYTES = 256;

    /*
     * struct vduse_dev_config
     *
     *   0  name           260  device type   272  queues             332  bytes of configuration
     * 256  vendor         264  features      276  queues' alignment  336  configuration
     */
    private static final int CONFIG_HEADER_BYTES = 336;

    /** Says what kind of device it is to nobody but people: "VIRT". */
    private static final int VENDOR = 0x54524956;

    private static final int QUEUE_ALIGNMENT = 4096;

    private final VdpaBus bus;

    VduseControl(VdpaBus bus) {
        this.bus = bus;
    }

    /** _IO, _IOW, _IOR and _IOWR of include/uapi/asm-generic/ioctl.h, type VDUSE_BASE. */
    static int ioc(int direction, int number, int bytes) {
        return direction << 30 | bytes << 16 | 0x81 << 8 | number;
    }

    @Override
    public String unavailable() {
        if (!Files.exists(CONTROL)) {
            return bus.isLoaded(VdpaBus.VDUSE)
                    ? "%s is not there, although the kernel module is loaded".formatted(CONTROL)
                    : bus.missing(VdpaBus.VDUSE);
        }
        return Linux.unavailable(CONTROL).orElse(null);
    }

    @Override
    public boolean exists(String name) {
        return Files.exists(FOLDER.resolve(name));
    }

    @Override
    public void create(String name, int deviceType, long features, int queues, byte[] config)
            throws IOException {
        try (Arena arena = Arena.ofConfined();
                FileDescriptor control = open()) {
            MemorySegment s = arena.allocate(CONFIG_HEADER_BYTES + config.length, 8);
            name(s, name);
            s.set(JAVA_INT, 256, VENDOR);
            s.set(JAVA_INT, 260, deviceType);
            s.set(JAVA_LONG, 264, features);
            s.set(JAVA_INT, 272, queues);
            s.set(JAVA_INT, 276, QUEUE_ALIGNMENT);
            s.set(JAVA_INT, 332, config.length);
            MemorySegment.copy(config, 0, s, JAVA_BYTE, CONFIG_HEADER_BYTES, config.length);
            control.ioctl(CREATE_DEV, s);
        }
    }

    private static FileDescriptor open() throws LinuxException {
        FileDescriptor control = FileDescriptor.open(CONTROL, FileDescriptor.O_RDWR);
        try (Arena arena = Arena.ofConfined()) {
            control.ioctl(SET_API_VERSION, arena.allocateFrom(JAVA_LONG, 0));
            return control;
        } catch (LinuxException e) {
            control.close();
            throw e;
        }
    }

    private static void name(MemorySegment s, String name) {
        byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
        MemorySegment.copy(bytes, 0, s, JAVA_BYTE, 0, Math.min(bytes.length, MAX_NAME_BYTES - 1));
    }

    @Override
    public VduseDevice open(String name, int queues) throws IOException {
        return VduseFile.open(FOLDER.resolve(name), queues);
    }

    @Override
    public void destroy(String name) throws IOException {
        try (Arena arena = Arena.ofConfined();
                FileDescriptor control = open()) {
            MemorySegment s = arena.allocate(MAX_NAME_BYTES);
            name(s, name);
            control.ioctl(DESTROY_DEV, s);
        }
    }

    @Override
    public void addToBus(String name) throws IOException {
        try (VdpaManagement management = new VdpaManagement()) {
            management.add("vduse", name);
        }
    }

    @Override
    public void removeFromBus(String name) throws IOException {
        try (VdpaManagement management = new VdpaManagement()) {
            management.delete(name);
        }
    }

    @Override
    public boolean isAnother(String name) {
        return bus.isAnother(name);
    }

    @Override
    public String driver(String name) {
        VdpaBus.Device device = bus.device(name);
        return device == null ? null : device.driver();
    }
}
