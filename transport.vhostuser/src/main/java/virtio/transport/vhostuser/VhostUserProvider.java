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
@Component
@Designate(ocd = VhostUserProvider.Config.class)
public final class VhostUserProvider implements TransportProvider {
    /** Set by the operator. */
    @ObjectClassDefinition(
            name = "Virtio vhost-user transport",
            description = "Drives devices that vhost-user back-ends serve")
    public @interface Config {
        @AttributeDefinition(
                description =
                        "Bytes of a region of shared memory; pages are taken as they are used,"
                                + " a quarter of the first region is for bouncing")
        long memoryBytes() default 256L << 20;

        @AttributeDefinition(
                description = "Bytes of the huge pages behind it, as 2097152; 0: ordinary pages")
        long hugePageBytes() default 0;

        @AttributeDefinition(description = "Milliseconds that a back-end may take for an answer")
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

    private final long memoryBytes;
    private final long pageBytes;
    private final int timeoutMillis;
    private final List<String> sockets;

    /** Called by the framework. */
    @Activate
    public VhostUserProvider(Config config) {
        this(
                config.memoryBytes(),
                config.hugePageBytes() == 0 ? Memory.PAGE_BYTES : config.hugePageBytes(),
                config.replyTimeoutMillis(),
                List.of(config.sockets()));
    }

    VhostUserProvider(long memoryBytes, long pageBytes, int timeoutMillis, List<String> sockets) {
        this.memoryBytes = memoryBytes;
        this.pageBytes = pageBytes;
        this.timeoutMillis = timeoutMillis;
        this.sockets = sockets;
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
        Address parsed = Address.parse(address);
        // A quarter is bounced in, in pages of 4096 bytes.
        long unit = Math.max(pageBytes, 4 * Memory.PAGE_BYTES);
        long bytes = Math.max(unit, memoryBytes - memoryBytes % unit);
        return new Device(VhostUser.NAME + ":" + address, parsed, bytes, pageBytes, timeoutMillis);
    }
}
