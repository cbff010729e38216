package virtio.transport.mmio;

import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Deactivate;
import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.Designate;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.api.transport.EmulatedMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.Exporter;
import virtio.api.transport.Transport;
import virtio.api.transport.TransportProvider;
import virtio.api.transport.VirtioTransport;
import virtio.linux.LinuxException;
import virtio.linux.SharedMemory;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;

/**
 * Both ends of {@code mmio:NAME}, the emulated windows of this container, and the driver end of
 * {@code mmio:0xADDRESS}, the windows of the machine.
 */
@VirtioTransport("mmio")
@Component(configurationPid = "virtio.transport.mmio")
@Designate(ocd = MmioProvider.Configuration.class)
public final class MmioProvider implements TransportProvider, Exporter {
    /** What an operator may set. */
    @ObjectClassDefinition(name = "Virtio over MMIO")
    public @interface Configuration {
        /** Megabytes of memory. */
        @AttributeDefinition(
                name = "Memory per device, in MiB",
                description =
                        "Coherent memory of an open device; what is not touched costs nothing.",
                min = "1",
                max = "1024")
        int coherentMebibytes() default 64;

        /** Megabytes of bounce slots. */
        @AttributeDefinition(
                name = "Bounce memory per device, in MiB",
                description =
                        "Bounds the requests in flight whose buffers are not coherent memory.",
                min = "1",
                max = "1024")
        int bounceMebibytes() default 16;

        /** Huge pages. */
        @AttributeDefinition(
                name = "Huge pages per device of the machine",
                description =
                        "Of 2 MiB each; coherent memory and, a quarter of it, bounce memory of a"
                                + " device behind a real window.",
                min = "1",
                max = "1024")
        int hugePages() default 8;
    }

    private static final long MEBIBYTE = 1 << 20;

    private final Map<String, EmulatedWindow> windows = new ConcurrentSkipListMap<>();
    private final long coherentBytes;
    private final long bounceBytes;
    private final RealWindows real;

    /**
     * Without windows.
     *
     * @throws IllegalArgumentException when a size is not within 1 and 1024
     */
    @Activate
    public MmioProvider(Configuration configuration) {
        this(
                configuration.coherentMebibytes(),
                configuration.bounceMebibytes(),
                new RealWindows(
                        Path.of("/"), (int) limited("hugePages", configuration.hugePages())));
    }

    MmioProvider(int coherentMebibytes, int bounceMebibytes, RealWindows real) {
        coherentBytes = limited("coherentMebibytes", coherentMebibytes) * MEBIBYTE;
        bounceBytes = limited("bounceMebibytes", bounceMebibytes) * MEBIBYTE;
        this.real = real;
    }

    private static long limited(String option, int value) {
        if (value < 1 || value > 1024) {
            throw new IllegalArgumentException(
                    "%s is %d, limits are 1 and 1024".formatted(option, value));
        }
        return value;
    }

    @Override
    public String name() {
        return "mmio";
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        if (address.isBlank() || RealWindows.isReal(address)) {
            throw new VirtioException("an emulated window needs a name, as mmio:emu0");
        }
        EmulatedWindow window = new EmulatedWindow(address, device, () -> windows.remove(address));
        if (windows.putIfAbsent(address, window) != null) {
            throw new VirtioException(
                    "mmio:%s is exported already: choose another name".formatted(address));
        }
        return window;
    }

    @Override
    public List<Candidate> discover() {
        List<Candidate> candidates = new ArrayList<>();
        windows.forEach((address, window) -> candidates.add(candidate(address, window)));
        candidates.addAll(real.discover());
        return candidates;
    }

    private static Candidate candidate(String address, EmulatedWindow window) {
        String driver = window.driver();
        return new Candidate(
                "mmio:" + address,
                window.description(),
                driver == null ? null : driver + ": detach it there first");
    }

    @Override
    public Transport open(String address) throws VirtioException {
        if (RealWindows.isReal(address)) {
            return real.open(address);
        }
        EmulatedWindow window = windows.get(address);
        if (window == null) {
            throw new VirtioException(
                    "mmio:%s does not exist: export a device there first".formatted(address));
        }
        EmulatedMemory memory;
        try {
            memory = memory(address, coherentBytes + bounceBytes, bounceBytes);
        } catch (LinuxException e) {
            throw new VirtioException("no memory for mmio:" + address + ": " + e.getMessage(), e);
        }
        try {
            MmioTransport transport = new MmioTransport(address, window, memory);
            window.attach(transport, memory);
            return transport;
        } catch (VirtioException | RuntimeException e) {
            memory.release();
            throw e;
        }
    }

    /** Memory for the driver of an emulated window, held once. */
    static EmulatedMemory memory(String name, long sizeBytes, long bounceBytes)
            throws LinuxException {
        SharedMemory shared = SharedMemory.create("virtio-mmio-" + name, sizeBytes);
        return new EmulatedMemory(shared.segment(), bounceBytes, shared::close);
    }

    /** Withdraws all windows. */
    @Deactivate
    void close() {
        windows.values().forEach(EmulatedWindow::close);
    }
}
