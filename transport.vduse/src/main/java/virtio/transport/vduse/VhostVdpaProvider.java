package virtio.transport.vduse;

import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.Designate;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.api.transport.Transport;
import virtio.api.transport.TransportProvider;
import virtio.api.transport.VirtioTransport;
import virtio.linux.Errno;
import virtio.linux.Linux;
import virtio.linux.LinuxException;
import virtio.linux.Memory;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Opens vDPA devices that vhost-vdpa holds, VDUSE ones included.
 *
 * <p>Address: the path of a character device, as {@code /dev/vhost-vdpa-0}, or the device's name on
 * the vDPA bus, as {@code disk0}.
 */
@VirtioTransport(VhostVdpaProvider.NAME)
@Component(configurationPid = "virtio.transport.vhostvdpa")
@Designate(ocd = VhostVdpaProvider.Configuration.class)
public final class VhostVdpaProvider implements TransportProvider {
    static final String NAME = "vhost-vdpa";

    /** Set by the operator. */
    @ObjectClassDefinition(
            name = "Virtio vhost-vdpa transport",
            description = "Drives devices of the kernel's vDPA bus")
    @interface Configuration {
        @AttributeDefinition(
                description =
                        "Bytes of a region of memory that a device sees; pages are taken as they"
                                + " are used, a quarter of the first region is for bouncing",
                min = "16384",
                max = "1099511627776")
        long memoryBytes() default 256L << 20;

        @AttributeDefinition(
                description =
                        "Bytes of the huge pages behind it, as 2097152, which a device wants that"
                                + " accesses memory by itself; 0: ordinary pages",
                min = "0",
                max = "17179869184")
        long hugePageBytes() default 0;
    }

    /** Opens a device by an address of ours. */
    @FunctionalInterface
    interface Opener {
        VhostVdpa open(String address) throws IOException;
    }

    /** A quarter is for bouncing, in pages of 4096 bytes. */
    private static final long MIN_MEMORY_BYTES = 4 * Memory.PAGE_BYTES;

    private static final long MAX_MEMORY_BYTES = 1L << 40;

    /** There are none larger. */
    private static final long MAX_PAGE_BYTES = 16L << 30;

    private final long memoryBytes;
    private final long pageBytes;
    private final VdpaBus bus;
    private final Opener opener;

    /**
     * Called by the framework.
     *
     * @throws IllegalArgumentException when a value is beyond its limits
     */
    @Activate
    public VhostVdpaProvider(Configuration configuration) {
        this(configuration.memoryBytes(), configuration.hugePageBytes(), new VdpaBus(Path.of("/")));
    }

    private VhostVdpaProvider(long memoryBytes, long hugePageBytes, VdpaBus bus) {
        this(memoryBytes, hugePageBytes, bus, address -> VhostVdpaFile.open(bus.file(address)));
    }

    VhostVdpaProvider(long memoryBytes, long hugePageBytes, VdpaBus bus, Opener opener) {
        pageBytes = pageBytes(hugePageBytes);
        long least = Math.max(MIN_MEMORY_BYTES, pageBytes);
        long bytes = limited("memoryBytes", memoryBytes, least, MAX_MEMORY_BYTES);
        this.memoryBytes = bytes - bytes % pageBytes;
        this.bus = bus;
        this.opener = opener;
    }

    private static long limited(String key, long value, long least, long most) {
        if (value < least || value > most) {
            throw new IllegalArgumentException(
                    "%s is %d, limits are %d and %d".formatted(key, value, least, most));
        }
        return value;
    }

    private static long pageBytes(long hugePageBytes) {
        if (hugePageBytes == 0) {
            return Memory.PAGE_BYTES;
        }
        if (Long.bitCount(hugePageBytes) != 1
                || hugePageBytes < Memory.PAGE_BYTES
                || hugePageBytes > MAX_PAGE_BYTES) {
            throw new IllegalArgumentException(
                    "hugePageBytes is %d, it is 0 or a power of two from %d to %d"
                            .formatted(hugePageBytes, Memory.PAGE_BYTES, MAX_PAGE_BYTES));
        }
        return hugePageBytes;
    }

    @Override
    public String name() {
        return NAME;
    }

    @Override
    public List<Candidate> discover() {
        List<Candidate> found = new ArrayList<>();
        for (VdpaBus.Device device : bus.devices()) {
            String about = "vDPA device " + device.name();
            found.add(
                    device.file() == null
                            ? new Candidate(
                                    NAME + ":" + device.name(), about, bus.withoutFile(device))
                            : new Candidate(
                                    NAME + ":" + device.file(),
                                    about,
                                    Linux.unavailable(device.file()).orElse(null)));
        }
        if (found.isEmpty() && !bus.isLoaded(VdpaBus.VHOST_VDPA)) {
            found.add(new Candidate(NAME + ":", "vDPA devices", bus.missing(VdpaBus.VHOST_VDPA)));
        }
        return found;
    }

    @Override
    public Transport open(String address) throws VirtioException {
        String whole = NAME + ":" + address;
        String unavailable = Linux.unavailable().orElse(null);
        if (unavailable != null) {
            throw new VirtioException(whole + ": " + unavailable);
        }
        VhostVdpa kernel;
        try {
            kernel = opener.open(address);
        } catch (IOException e) {
            throw new VirtioException(whole + ": " + unavailable(e), e);
        }
        return new VhostVdpaTransport(whole, kernel, memoryBytes, pageBytes);
    }

    /** Why a device cannot be opened, and what to do. */
    private static String unavailable(IOException e) {
        if (e instanceof LinuxException linux) {
            switch (linux.errno()) {
                case Errno.EBUSY:
                    return "somebody else drives it: " + e.getMessage();
                case Errno.EIO:
                    return "its server does not answer: " + e.getMessage();
                case Errno.EACCES:
                case Errno.EPERM:
                    return "this user may not open it, root may: " + e.getMessage();
                default:
                    break;
            }
        }
        return e.getMessage();
    }
}
