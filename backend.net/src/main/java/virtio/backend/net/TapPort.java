package virtio.backend.net;

import virtio.api.VirtioException;
import virtio.api.net.NetHeader;
import virtio.linux.Errno;
import virtio.linux.EventLoop;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.concurrent.atomic.LongAdder;

/**
 * A TAP interface of the host as a port: what the kernel sends through it goes to the link, with
 * the header that virtio has as well (Linux's {@code Documentation/networking/tuntap.rst}).
 */
final class TapPort implements Port, AutoCloseable {
    private static final System.Logger LOG = System.getLogger(TapPort.class.getPackageName());
    private static final Path DEVICE = Path.of("/dev/net/tun");

    // linux/if_tun.h
    private static final int TUNSETIFF = 0x400454CA;
    private static final int TUNSETOFFLOAD = 0x400454D0;
    private static final int TUNSETVNETHDRSZ = 0x400454D8;
    private static final int IFF_TAP = 0x0002;
    private static final int IFF_NO_PI = 0x1000;
    private static final int IFF_VNET_HDR = 0x4000;
    private static final int TUN_F_CSUM = 0x01;
    private static final int TUN_F_TSO4 = 0x02;
    private static final int TUN_F_TSO6 = 0x04;
    private static final int TUN_F_TSO_ECN = 0x08;
    private static final int TUN_F_USO4 = 0x20;
    private static final int TUN_F_USO6 = 0x40;

    // struct ifreq
    private static final int IFREQ_BYTES = 40;
    private static final int IFREQ_FLAGS = 16;
    private static final int MAX_NAME = 15;

    /** A busy interface lets the thread look at others after so many. */
    private static final int BURST = 64;

    private final String name;
    private final FileDescriptor file;
    private final Switch network;
    private final boolean udp;
    private final EventLoop loop;
    private final Sender sender = new Sender();

    /** Frames that the kernel did not take. */
    private final LongAdder dropped = new LongAdder();

    private TapPort(String name, FileDescriptor file, boolean udp, Switch network)
            throws LinuxException {
        this.name = name;
        this.file = file;
        this.udp = udp;
        this.network = network;
        loop = EventLoop.start("virtio-tap-" + name);
        try {
            loop.watch(file, FileDescriptor.IN, events -> readable());
        } catch (LinuxException e) {
            loop.close();
            throw e;
        }
    }

    /**
     * Makes the interface, or takes one that is there, and joins the switch with it.
     *
     * @throws VirtioException in one sentence that says what to do
     */
    static TapPort open(String name, Switch network) throws VirtioException {
        byte[] bytes = name.getBytes(StandardCharsets.US_ASCII);
        if (bytes.length == 0 || bytes.length > MAX_NAME) {
            throw new VirtioException(
                    "interface '%s': its name has 1 to %d characters".formatted(name, MAX_NAME));
        }
        FileDescriptor file = null;
        try (Arena arena = Arena.ofConfined()) {
            file = FileDescriptor.open(DEVICE, FileDescriptor.O_RDWR | FileDescriptor.O_NONBLOCK);
            MemorySegment request = arena.allocate(IFREQ_BYTES, Long.BYTES);
            MemorySegment.copy(bytes, 0, request, ValueLayout.JAVA_BYTE, 0, bytes.length);
            request.set(
                    ValueLayout.JAVA_SHORT,
                    IFREQ_FLAGS,
                    (short) (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR));
            file.ioctl(TUNSETIFF, request);
            MemorySegment size = arena.allocate(ValueLayout.JAVA_INT);
            size.set(ValueLayout.JAVA_INT, 0, NetHeader.BYTES);
            file.ioctl(TUNSETVNETHDRSZ, size);
            TapPort port = new TapPort(name, file, offload(file), network);
            network.join(port);
            return port;
        } catch (LinuxException e) {
            if (file != null) {
                file.close();
            }
            throw new VirtioException("interface %s: %s".formatted(name, unavailable(e)), e);
        }
    }

    /** Takes everything unsegmented, where the kernel can; whether that includes UDP. */
    private static boolean offload(FileDescriptor file) throws LinuxException {
        int tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        try {
            // Since Linux 6.2.
            file.ioctl(TUNSETOFFLOAD, (long) (tcp | TUN_F_USO4 | TUN_F_USO6));
            return true;
        } catch (LinuxException e) {
            file.ioctl(TUNSETOFFLOAD, (long) tcp);
            return false;
        }
    }

    private static String unavailable(LinuxException e) {
        return switch (e.errno()) {
            case Errno.ENOENT, Errno.ENODEV, Errno.ENXIO ->
                    DEVICE + " is not there; load the module tun";
            case Errno.EACCES, Errno.EPERM ->
                    "this user may not use it: give it CAP_NET_ADMIN, or an interface made by"
                            + " 'ip tuntap add dev NAME mode tap user USER'";
            case Errno.EBUSY -> "somebody else uses it already";
            default -> e.getMessage();
        };
    }

    private void readable() {
        try {
            for (int i = 0; i < BURST; i++) {
                Frame frame = sender.frame;
                frame.length = (int) file.read(frame.memory) - Frame.HEADER;
                if (frame.bad() == null) {
                    network.send(this, sender);
                }
            }
        } catch (LinuxException e) {
            if (e.errno() != Errno.EAGAIN) {
                // Deleted, for one: the kernel would say so again and again.
                LOG.log(Level.WARNING, "interface {0} is gone: {1}", name, e.getMessage());
                network.leave(this);
                loop.close();
            }
        }
        sender.flush();
    }

    @Override
    public void deliver(Sender from) {
        Frame frame = from.frame;
        if (frame.gsoType() == NetHeader.GSO_UDP_L4 && !udp) {
            from.segmentation.split(frame, this::write);
        } else {
            write(frame);
        }
    }

    private void write(Frame frame) {
        try {
            file.write(frame.memory.asSlice(0, Frame.HEADER + (long) frame.length));
        } catch (LinuxException e) {
            // Down, or full: as on any other cable.
            dropped.increment();
        }
    }

    @Override
    public void close() {
        network.leave(this);
        loop.close();
        file.close();
    }

    @Override
    public String toString() {
        return "interface " + name;
    }
}
