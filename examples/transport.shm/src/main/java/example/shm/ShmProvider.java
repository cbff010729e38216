package example.shm;

import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Deactivate;
import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.Designate;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.Exporter;
import virtio.api.transport.Transport;
import virtio.api.transport.TransportProvider;
import virtio.api.transport.VirtioTransport;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;

/** Both ends of {@code shm:/path/to/file}. */
@VirtioTransport("shm")
@Component(configurationPid = "example.transport.shm")
@Designate(ocd = ShmProvider.Configuration.class)
public final class ShmProvider implements TransportProvider, Exporter {
    /** What an operator may set. */
    @ObjectClassDefinition(name = "Virtio over a shared file")
    public @interface Configuration {
        /** Megabytes of a driver's memory, as the exporter lays it out. */
        @AttributeDefinition(
                name = "Memory per driver, in MiB",
                description = "Of exported devices; what is not touched costs nothing.",
                min = "2",
                max = "1024")
        int regionMebibytes() default 80;

        /** Megabytes of bounce slots in it. */
        @AttributeDefinition(
                name = "Bounce memory per driver, in MiB",
                description = "Of attached devices; a part of their memory.",
                min = "1",
                max = "1023")
        int bounceMebibytes() default 16;

        /** The longest pause of a thread that polls. */
        @AttributeDefinition(
                name = "Longest pause, in microseconds",
                description = "An idle end looks that often, and sees that late.",
                min = "50",
                max = "100000")
        int longestPauseMicros() default 1000;
    }

    private static final long MEBIBYTE = 1 << 20;

    private final Map<String, ShmExport> exports = new ConcurrentSkipListMap<>();
    private final long regionBytes;
    private final long bounceBytes;
    private final long longestPauseNanos;

    /**
     * Without exports.
     *
     * @throws IllegalArgumentException when a value is beyond its limits
     */
    @Activate
    public ShmProvider(Configuration configuration) {
        this(
                configuration.regionMebibytes(),
                configuration.bounceMebibytes(),
                configuration.longestPauseMicros());
    }

    ShmProvider(int regionMebibytes, int bounceMebibytes, int longestPauseMicros) {
        regionBytes = limited("regionMebibytes", regionMebibytes, 2, 1024) * MEBIBYTE;
        bounceBytes = limited("bounceMebibytes", bounceMebibytes, 1, 1023) * MEBIBYTE;
        longestPauseNanos = limited("longestPauseMicros", longestPauseMicros, 50, 100_000) * 1000L;
    }

    private static int limited(String key, int value, int least, int most) {
        if (value < least || value > most) {
            throw new IllegalArgumentException(
                    "%s is %d, limits are %d and %d".formatted(key, value, least, most));
        }
        return value;
    }

    @Override
    public String name() {
        return "shm";
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        ShmExport export =
                new ShmExport(
                        address,
                        device,
                        regionBytes,
                        longestPauseNanos,
                        () -> exports.remove(address));
        exports.put(address, export);
        export.start();
        return export;
    }

    /** The files of this container: others are found by whoever knows their names. */
    @Override
    public List<Candidate> discover() {
        return exports.entrySet().stream()
                .map(entry -> candidate(entry.getKey(), entry.getValue()))
                .toList();
    }

    private static Candidate candidate(String address, ShmExport export) {
        String driver = export.driver();
        return new Candidate(
                "shm:" + address,
                export.description(),
                driver == null ? null : driver + ": detach it there first");
    }

    @Override
    public Transport open(String address) throws VirtioException {
        ShmFile file = ShmFile.open(ShmFile.path(address));
        try {
            if (bounceBytes >= file.regionBytes()) {
                throw new VirtioException(
                        "%s has %d MiB for a driver, bounceMebibytes is %d and must be less"
                                .formatted(
                                        file.name,
                                        file.regionBytes() / MEBIBYTE,
                                        bounceBytes / MEBIBYTE));
            }
            return ShmTransport.open(file, bounceBytes, longestPauseNanos);
        } catch (VirtioException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    /** Withdraws all exports. */
    @Deactivate
    void close() {
        exports.values().forEach(ShmExport::close);
    }
}
