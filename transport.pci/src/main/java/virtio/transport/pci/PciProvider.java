package virtio.transport.pci;

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

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListMap;

/**
 * Both ends of {@code pci:NAME}, the emulated functions of this container, and the driver end of
 * {@code pci:0000:00:04.0}, the real functions that are bound to vfio-pci.
 */
@VirtioTransport("pci")
@Component(configurationPid = "virtio.transport.pci")
@Designate(ocd = PciProvider.Configuration.class)
public final class PciProvider implements TransportProvider, Exporter {
    /** What an operator may set. */
    @ObjectClassDefinition(name = "Virtio over PCI")
    public @interface Configuration {
        /** Megabytes of memory. */
        @AttributeDefinition(
                name = "Memory per device, in MiB",
                description =
                        "Coherent memory of an open device; a real one's is locked in memory.",
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
    }

    private static final String TAKEN_HERE = "driven in this container: detach it there first";
    private static final long MEBIBYTE = 1 << 20;

    /** Most vectors that MSI-X has (4.1.5.1.2). */
    private static final int MOST_VECTORS = 2048;

    private final Map<String, EmulatedFunction> functions = new ConcurrentSkipListMap<>();

    /** Real functions that are open, by address. */
    private final Set<String> taken = ConcurrentHashMap.newKeySet();

    private final long coherentBytes;
    private final long bounceBytes;

    /**
     * Without functions.
     *
     * @throws IllegalArgumentException when a size is not within 1 and 1024
     */
    @Activate
    public PciProvider(Configuration configuration) {
        this(configuration.coherentMebibytes(), configuration.bounceMebibytes());
    }

    PciProvider(int coherentMebibytes, int bounceMebibytes) {
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
        return "pci";
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        if (address.isBlank()) {
            throw new VirtioException("an emulated function needs a name, as pci:emu0");
        }
        if (PciSlot.isFunction(address)) {
            throw new VirtioException(
                    "pci:%s is the address of a real function: choose a name".formatted(address));
        }
        int vectors = Math.min(device.queueCount() + 1, MOST_VECTORS);
        EmulatedFunction function =
                new EmulatedFunction(
                        "pci:" + address, device, vectors, () -> functions.remove(address));
        if (functions.putIfAbsent(address, function) != null) {
            throw new VirtioException(
                    "pci:%s is exported already: choose another name".formatted(address));
        }
        return function;
    }

    @Override
    public List<Candidate> discover() {
        List<Candidate> found = new ArrayList<>();
        functions.forEach((address, function) -> found.add(candidate(address, function)));
        for (PciSlot slot : PciSlot.all(PciSlot.DEVICES)) {
            String unavailable = taken.contains(slot.function()) ? TAKEN_HERE : slot.unavailable();
            found.add(new Candidate("pci:" + slot.function(), slot.description(), unavailable));
        }
        return found;
    }

    private static Candidate candidate(String address, EmulatedFunction function) {
        String driver = function.driver();
        return new Candidate(
                "pci:" + address,
                function.description(),
                driver == null ? null : driver + ": detach it there first");
    }

    @Override
    public Transport open(String address) throws VirtioException {
        if (PciSlot.isFunction(address)) {
            return openReal(PciSlot.whole(address));
        }
        EmulatedFunction function = functions.get(address);
        if (function == null) {
            throw new VirtioException(
                    "pci:%s does not exist: export a device there first".formatted(address));
        }
        EmulatedMemory memory;
        try {
            memory = memory(address, coherentBytes + bounceBytes, bounceBytes);
        } catch (LinuxException e) {
            throw new VirtioException("no memory for pci:" + address + ": " + e.getMessage(), e);
        }
        PciTransport transport = new PciTransport("pci:" + address, function, memory);
        try {
            function.attach(transport, memory);
            transport.start();
            return transport;
        } catch (VirtioException | RuntimeException e) {
            transport.close();
            throw e;
        }
    }

    /** Memory for the driver of an emulated function, held once. */
    static EmulatedMemory memory(String name, long sizeBytes, long bounceBytes)
            throws LinuxException {
        SharedMemory shared = SharedMemory.create("virtio-pci-" + name, sizeBytes);
        return new EmulatedMemory(shared.segment(), bounceBytes, shared::close);
    }

    private Transport openReal(String address) throws VirtioException {
        String where = "pci:" + address;
        PciSlot slot =
                PciSlot.of(PciSlot.DEVICES, address)
                        .orElseThrow(
                                () ->
                                        new VirtioException(
                                                where + " does not exist, or is no virtio device"));
        if (slot.unavailable() != null) {
            throw new VirtioException(where + " is " + slot.unavailable());
        }
        if (!taken.add(address)) {
            throw new VirtioException(where + " is " + TAKEN_HERE);
        }
        VfioFunction function;
        try {
            function = VfioFunction.open(where, slot, () -> taken.remove(address));
        } catch (VirtioException | RuntimeException e) {
            taken.remove(address);
            throw e;
        }
        VfioMemory memory;
        try {
            memory =
                    VfioMemory.create(
                            where, function.group(), coherentBytes + bounceBytes, bounceBytes);
        } catch (VirtioException | RuntimeException e) {
            function.detach(null);
            throw e;
        }
        PciTransport transport = new PciTransport(where, function, memory);
        function.attach(transport, memory);
        try {
            transport.start();
            return transport;
        } catch (VirtioException | RuntimeException e) {
            transport.close();
            throw e;
        }
    }

    /** Withdraws all functions. */
    @Deactivate
    void close() {
        functions.values().forEach(EmulatedFunction::close);
    }
}
