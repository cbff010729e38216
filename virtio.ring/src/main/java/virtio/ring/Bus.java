package virtio.ring;

import org.osgi.framework.ServiceReference;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Deactivate;
import org.osgi.service.component.annotations.Modified;
import org.osgi.service.component.annotations.Reference;
import org.osgi.service.component.annotations.ReferenceCardinality;
import org.osgi.service.component.annotations.ReferencePolicy;
import org.osgi.service.metatype.annotations.AttributeDefinition;
import org.osgi.service.metatype.annotations.Designate;
import org.osgi.service.metatype.annotations.ObjectClassDefinition;

import virtio.api.DeviceType;
import virtio.api.VirtioBus;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.backend.BackendProvider;
import virtio.api.map.MapOps;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.ExportSnapshot;
import virtio.api.status.SwapResult;
import virtio.api.transport.Candidate;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * Where drivers meet devices: keeps what is declared, and tells it when services come and go.
 *
 * <p>Holds its lock for its own lists only, never while it calls anybody.
 */
@Component(
        service = {VirtioBus.class, Bus.class},
        immediate = true,
        configurationPid = "virtio.bus")
@Designate(ocd = Bus.Configuration.class)
public final class Bus implements VirtioBus, AttachedDevice.Owner {
    /** What the operator sets for the bus. */
    @ObjectClassDefinition(name = "Virtio bus", description = "Waits of the virtio core")
    public @interface Configuration {
        /** How long consumers' calls may wait for a swap or a reconnect. */
        @AttributeDefinition(
                name = "Swap timeout (ms)",
                description = "How long consumers' calls may wait for a swap or a reconnect",
                min = "0")
        long swapTimeoutMillis() default 30_000;

        /** How long a freeze may wait for what is in flight. */
        @AttributeDefinition(
                name = "Drain timeout (ms)",
                description = "How long a freeze may wait for requests in flight",
                min = "0")
        long drainTimeoutMillis() default 5_000;

        /** Pause between two attempts to find a lost device again. */
        @AttributeDefinition(
                name = "Reconnect interval (ms)",
                description = "Pause between two attempts to find a lost device again",
                min = "1")
        long reconnectIntervalMillis() default 200;
    }

    private static final Pattern ADDRESS = Pattern.compile("[A-Za-z0-9][A-Za-z0-9.-]*:.+");
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9_.-]*");
    private static final Logger LOG = System.getLogger(Bus.class.getPackageName());

    private final Services services = new Services();
    private final List<AttachedDevice> devices = new CopyOnWriteArrayList<>();
    private final List<DeclaredExport> exports = new CopyOnWriteArrayList<>();
    private final Object lists = new Object();
    private volatile Settings settings = Settings.DEFAULT;
    private boolean closed;

    /** For the component runtime. */
    public Bus() {}

    @Activate
    @Modified
    void configure(Configuration configuration) {
        configure(
                new Settings(
                        configuration.swapTimeoutMillis(),
                        configuration.drainTimeoutMillis(),
                        configuration.reconnectIntervalMillis()));
    }

    void configure(Settings changed) {
        settings = changed;
    }

    /** Lets everything go: devices first, which may be driving the exports. */
    @Deactivate
    void deactivate() {
        synchronized (lists) {
            closed = true;
        }
        List<Lifecycle> lifecycles = new ArrayList<>();
        devices.forEach(device -> lifecycles.add(device.lifecycle()));
        devices.forEach(AttachedDevice::close);
        await(lifecycles);
        lifecycles.clear();
        exports.forEach(export -> lifecycles.add(export.lifecycle()));
        exports.forEach(DeclaredExport::close);
        await(lifecycles);
    }

    private void await(List<Lifecycle> lifecycles) {
        long limitMillis = settings.departureMillis();
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(limitMillis);
        for (Lifecycle lifecycle : lifecycles) {
            if (lifecycle.isInside() || lifecycle.awaitEnd(leftMillis(end))) {
                continue;
            }
            LOG.log(
                    Level.ERROR,
                    "{0} was not let go within {1} ms and is interrupted",
                    lifecycle,
                    limitMillis);
            lifecycle.closeNow();
        }
    }

    private static long leftMillis(long end) {
        return TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime() + 999_999);
    }

    // Services as they come and go. Coming is only noted here and acted on elsewhere.

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void bindTransport(ServiceReference<TransportProvider> reference, TransportProvider service) {
        services.addTransport(reference, service);
        advance();
    }

    void unbindTransport(TransportProvider service) {
        services.removeTransport(service);
        depart(service);
    }

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void bindMapOps(ServiceReference<MapOps> reference, MapOps service) {
        services.addMapOps(reference, service);
        advance();
    }

    void unbindMapOps(MapOps service) {
        services.removeMapOps(service);
        depart(service);
    }

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void bindDriver(ServiceReference<VirtioDriver> reference, VirtioDriver service) {
        services.addDriver(reference, service);
        advance();
    }

    void unbindDriver(VirtioDriver service) {
        services.removeDriver(service);
        depart(service);
    }

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void bindExporter(ServiceReference<Exporter> reference, Exporter service) {
        services.addExporter(reference, service);
        advance();
    }

    void unbindExporter(Exporter service) {
        services.removeExporter(service);
        depart(service);
    }

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void bindBackend(ServiceReference<BackendProvider> reference, BackendProvider service) {
        services.addBackend(reference, service);
        advance();
    }

    void unbindBackend(BackendProvider service) {
        services.removeBackend(service);
        depart(service);
    }

    private void advance() {
        exports.forEach(DeclaredExport::advance);
        devices.forEach(AttachedDevice::advance);
    }

    /** Returns when nobody uses the service any more: its bundle may stop then. */
    private void depart(Object service) {
        long limitMillis = settings.departureMillis();
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(limitMillis);
        List<Future<?>> steps = new ArrayList<>();
        for (AttachedDevice device : devices) {
            depart(steps, () -> device.depart(service));
        }
        for (Future<?> step : steps) {
            await(step, end, limitMillis);
        }
        steps.clear();
        for (DeclaredExport export : exports) {
            depart(steps, () -> export.depart(service));
        }
        for (Future<?> step : steps) {
            await(step, end, limitMillis);
        }
    }

    private interface Departure {
        Future<?> start() throws VirtioException;
    }

    private static void depart(List<Future<?>> steps, Departure departure) {
        try {
            Future<?> step = departure.start();
            if (step != null) {
                steps.add(step);
            }
        } catch (VirtioException e) {
            LOG.log(Level.DEBUG, e.getMessage());
        }
    }

    private static void await(Future<?> step, long end, long limitMillis) {
        try {
            Lifecycle.await("letting go of a service that leaves", step, leftMillis(end));
        } catch (VirtioException e) {
            LOG.log(Level.ERROR, "{0} (limit {1} ms)", e.getMessage(), limitMillis);
        }
    }

    // What is declared.

    AttachedDevice declareAttachment(String address, String name) throws VirtioException {
        AttachedDevice device = add(address, name);
        device.advance();
        return device;
    }

    DeclaredExport declareExport(String backend, String address) throws VirtioException {
        DeclaredExport export = add(backend, address, exports);
        export.advance();
        return export;
    }

    void withdraw(AttachedDevice device) {
        try {
            Lifecycle.await("detach " + device.name(), device.detach(), settings.operationMillis());
        } catch (VirtioException e) {
            LOG.log(Level.DEBUG, e.getMessage()); // Detached by hand before.
        }
    }

    void withdraw(DeclaredExport export) {
        try {
            Lifecycle.await(
                    "unexport " + export.address(), export.unexport(), settings.operationMillis());
        } catch (VirtioException e) {
            LOG.log(Level.DEBUG, e.getMessage()); // Withdrawn by hand before.
        }
    }

    private AttachedDevice add(String address, String name) throws VirtioException {
        checkAddress("address", address);
        if (name != null && !NAME.matcher(name).matches()) {
            throw new VirtioException(
                    "\"" + name + "\" is no name: letters, digits and _ . - make one");
        }
        synchronized (lists) {
            checkOpen();
            checkFree(address, name);
            AttachedDevice device =
                    new AttachedDevice(address, name, services, () -> settings, this);
            devices.add(device);
            return device;
        }
    }

    private void checkFree(String address, String name) throws VirtioException {
        for (AttachedDevice other : devices) {
            if (other.address().equals(address)) {
                throw new VirtioException(address + " is attached already, as " + other.name());
            }
            if (other.name().equals(name)) {
                throw new VirtioException(name + " is taken, by " + other.address());
            }
        }
    }

    private DeclaredExport add(String backend, String address, List<DeclaredExport> to)
            throws VirtioException {
        checkAddress("backend", backend);
        checkAddress("address", address);
        synchronized (lists) {
            checkOpen();
            for (DeclaredExport other : to) {
                if (other.address().equals(address)) {
                    throw new VirtioException(address + " is exported already");
                }
            }
            DeclaredExport export =
                    new DeclaredExport(backend, address, services, () -> settings, this::letGo);
            to.add(export);
            return export;
        }
    }

    private void checkOpen() throws VirtioException {
        if (closed) {
            throw new VirtioException("the virtio core is stopped");
        }
    }

    private static void checkAddress(String what, String address) throws VirtioException {
        // A kind of backend may need no more than its name, as "loopback:".
        boolean bare = what.equals("backend") && address != null && address.endsWith(":");
        if (address == null || !ADDRESS.matcher(bare ? address + "-" : address).matches()) {
            throw new VirtioException(
                    "\"%s\" is no %s: it has the form %s"
                            .formatted(
                                    address,
                                    what,
                                    what.equals("backend") ? "ram:64MiB" : "mmio:emu0"));
        }
    }

    @Override
    public String claimName(AttachedDevice device, int deviceType) {
        String word = DeviceType.name(deviceType).replace(" ", "");
        // A number would run into the one behind it: type18-0.
        String prefix = Character.isDigit(word.charAt(word.length() - 1)) ? word + "-" : word;
        synchronized (lists) {
            for (int number = 0; ; number++) {
                String name = prefix + number;
                if (devices.stream().noneMatch(other -> other.name().equals(name))) {
                    device.name(name);
                    return name;
                }
            }
        }
    }

    @Override
    public void letGo(AttachedDevice device) {
        devices.remove(device);
    }

    private void letGo(DeclaredExport export) {
        exports.remove(export);
    }

    // VirtioBus

    @Override
    public ExportSnapshot export(String backend, String address) throws VirtioException {
        ExportSnapshot exported = add(backend, address, exports).export();
        advance();
        return exported;
    }

    @Override
    public void unexport(String address) throws VirtioException {
        for (DeclaredExport export : exports) {
            if (export.address().equals(address)) {
                Lifecycle.await(
                        "unexport " + address, export.unexport(), settings.operationMillis());
                return;
            }
        }
        throw new VirtioException("nothing is exported at " + address);
    }

    @Override
    public DeviceSnapshot attach(String address, String name) throws VirtioException {
        return add(address, name).attach();
    }

    @Override
    public void detach(String name) throws VirtioException {
        AttachedDevice device = device(name);
        Lifecycle.await("detach " + name, device.detach(), settings.operationMillis());
    }

    @Override
    public SwapResult swap(String name, String address) throws VirtioException {
        AttachedDevice device = device(name);
        checkAddress("address", address);
        for (AttachedDevice other : devices) {
            if (other != device && other.address().equals(address)) {
                throw new VirtioException(address + " is attached already, as " + other.name());
            }
        }
        return device.swap(address);
    }

    private AttachedDevice device(String name) throws VirtioException {
        for (AttachedDevice device : devices) {
            if (device.name().equals(name)) {
                return device;
            }
        }
        throw new VirtioException("no device " + name + " is attached");
    }

    @Override
    public List<DeviceSnapshot> devices() {
        return devices.stream()
                .map(AttachedDevice::snapshot)
                .sorted(Comparator.comparing(DeviceSnapshot::name))
                .toList();
    }

    @Override
    public List<ExportSnapshot> exports() {
        return exports.stream()
                .map(DeclaredExport::snapshot)
                .sorted(Comparator.comparing(ExportSnapshot::address))
                .toList();
    }

    @Override
    public List<Candidate> candidates() {
        return services.candidates();
    }
}
