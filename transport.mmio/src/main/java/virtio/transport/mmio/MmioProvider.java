package virtio.transport.mmio;

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
import virtio.linux.LinuxException;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;

/** Both ends of {@code mmio:NAME}: the emulated windows of this container. */
@VirtioTransport("mmio")
@Component
@Designate(ocd = MmioProvider.Config.class)
public final class MmioProvider implements TransportProvider, Exporter {
    /** What an operator may set. */
    @ObjectClassDefinition(name = "Virtio over MMIO")
    public @interface Config {
        /** Megabytes of memory. */
        @AttributeDefinition(
                name = "Memory per device, in MiB",
                description =
                        "Coherent memory of an open device; what is not touched costs nothing.")
        int coherentMebibytes() default 64;

        /** Megabytes of bounce slots. */
        @AttributeDefinition(
                name = "Bounce memory per device, in MiB",
                description =
                        "Bounds the requests in flight whose buffers are not coherent memory.")
        int bounceMebibytes() default 16;
    }

    private static final long MEBIBYTE = 1 << 20;

    private final Map<String, EmulatedWindow> windows = new ConcurrentSkipListMap<>();
    private final long coherentBytes;
    private final long bounceBytes;

    /**
     * Without windows.
     *
     * @throws IllegalArgumentException when a size is not within 1 and 1024
     */
    @Activate
    public MmioProvider(Config config) {
        this(config.coherentMebibytes(), config.bounceMebibytes());
    }

    MmioProvider(int coherentMebibytes, int bounceMebibytes) {
        coherentBytes = bytes("coherentMebibytes", coherentMebibytes);
        bounceBytes = bytes("bounceMebibytes", bounceMebibytes);
    }

    private static long bytes(String option, int mebibytes) {
        if (mebibytes < 1 || mebibytes > 1024) {
            throw new IllegalArgumentException(
                    "%s is %d, limits are 1 and 1024".formatted(option, mebibytes));
        }
        return mebibytes * MEBIBYTE;
    }

    @Override
    public String name() {
        return "mmio";
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        if (address.isBlank()) {
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
        return windows.entrySet().stream()
                .map(entry -> candidate(entry.getKey(), entry.getValue()))
                .toList();
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
        EmulatedWindow window = windows.get(address);
        if (window == null) {
            throw new VirtioException(
                    "mmio:%s does not exist: export a device there first".formatted(address));
        }
        MmioMemory memory;
        try {
            memory = new MmioMemory(address, coherentBytes + bounceBytes, bounceBytes);
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

    /** Withdraws all windows. */
    @Deactivate
    void close() {
        windows.values().forEach(EmulatedWindow::close);
    }
}
