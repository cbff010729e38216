package virtio.transport.vhostuser;

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
import virtio.linux.Linux;
import virtio.linux.Memory;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/**
 * Opens devices that vhost-user back-ends serve.
 *
 * <p>Address: {@code PATH} of the back-end's socket, with {@code ,type=blk} or {@code ,type=net}
 * where the kind of device cannot be told from what the back-end offers, and {@code
 * ,without=FEATURE} for each feature that is not to be used, as RING_PACKED.
 */
@VirtioTransport(VhostUser.NAME)
@Component(configurationPid = "virtio.transport.vhostuser")
@Designate(ocd = VhostUserProvider.Configuration.class)
public final class VhostUserProvider implements TransportProvider {
    /** Set by the operator. */
    @ObjectClassDefinition(
            name = "Virtio vhost-user transport",
            description = "Drives devices that vhost-user back-ends serve")
    public @interface Configuration {
        @AttributeDefinition(
                description =
                        "Bytes of a region of shared memory; pages are taken as they are used,"
                                + " a quarter of the first region is for bouncing",
                min = "16384",
                max = "1099511627776")
        long memoryBytes() default 256L << 20;

        @AttributeDefinition(
                description = "Bytes of the huge pages behind it, as 2097152; 0: ordinary pages",
                min = "0",
                max = "17179869184")
        long hugePageBytes() default 0;

        @AttributeDefinition(
                description = "Milliseconds that a back-end may take for an answer",
                min = "1")
        int replyTimeoutMillis() default 10_000;

        @AttributeDefinition(description = "Folders whose *.sock files are listed as candidates")
        String[] sockets() default {};
    }

    /** One device to open: all that its transport must know. */
    record Device(
            String name, Address address, long memoryBytes, long pageBytes, int timeoutMillis) {
        Device(
                String name,
                Path path,
                int deviceType,
                long memoryBytes,
                long pageBytes,
                int timeoutMillis) {
            this(
                    name,
                    new Address(path, deviceType, Set.of()),
                    memoryBytes,
                    pageBytes,
                    timeoutMillis);
        }
    }

    /** A quarter is for bouncing, in pages of 4096 bytes. */
    private static final long MIN_MEMORY_BYTES = 4 * Memory.PAGE_BYTES;

    private static final long MAX_MEMORY_BYTES = 1L << 40;

    /** There are none larger. */
    private static final long MAX_PAGE_BYTES = 16L << 30;

    private final long memoryBytes;
    private final long pageBytes;
    private final int timeoutMillis;
    private final List<String> sockets;

    /**
     * Called by the framework.
     *
     * @throws IllegalArgumentException when a value is beyond its limits
     */
    @Activate
    public VhostUserProvider(Configuration configuration) {
        this(
                configuration.memoryBytes(),
                configuration.hugePageBytes(),
                configuration.replyTimeoutMillis(),
                List.of(configuration.sockets()));
    }

    VhostUserProvider(
            long memoryBytes, long hugePageBytes, int timeoutMillis, List<String> sockets) {
        pageBytes = pageBytes(hugePageBytes);
        long least = Math.max(MIN_MEMORY_BYTES, pageBytes);
        long bytes = limited("memoryBytes", memoryBytes, least, MAX_MEMORY_BYTES);
        this.memoryBytes = bytes - bytes % pageBytes;
        this.timeoutMillis =
                (int) limited("replyTimeoutMillis", timeoutMillis, 1, Integer.MAX_VALUE);
        this.sockets = sockets;
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
        return VhostUser.NAME;
    }

    @Override
    public List<Candidate> discover() {
        List<Candidate> found = new ArrayList<>();
        for (String folder : sockets) {
            try (DirectoryStream<Path> files =
                    Files.newDirectoryStream(Path.of(folder), "*.sock")) {
                for (Path socket : files) {
                    found.add(
                            new Candidate(
                                    VhostUser.NAME + ":" + socket,
                                    "vhost-user back-end",
                                    Linux.unavailable(socket).orElse(null)));
                }
            } catch (IOException | InvalidPathException e) {
                found.add(
                        new Candidate(
                                VhostUser.NAME + ":" + folder,
                                "folder of vhost-user sockets",
                                "it cannot be listed: " + e));
            }
        }
        return found;
    }

    @Override
    public Transport open(String address) throws VirtioException {
        String unavailable = Linux.unavailable().orElse(null);
        if (unavailable != null) {
            throw new VirtioException(VhostUser.NAME + ":" + address + ": " + unavailable);
        }
        return new VhostUserTransport(device(address));
    }

    private Device device(String address) throws VirtioException {
        return new Device(
                VhostUser.NAME + ":" + address,
                Address.parse(address),
                memoryBytes,
                pageBytes,
                timeoutMillis);
    }
}
