package virtio.ring;

import org.osgi.framework.Bundle;
import org.osgi.framework.ServiceReference;

import virtio.api.DeviceType;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.backend.BackendProvider;
import virtio.api.map.MapOps;
import virtio.api.transport.Candidate;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Supplier;

/** The services that are there now. Thread-safe; calls nobody while it holds a lock. */
final class Services {
    /**
     * A service that is there.
     *
     * @param key transport, backend or device type that it stands for
     * @param bundle symbolic name and version of the bundle that registered it
     */
    record Provided<T>(
            ServiceReference<T> reference, T service, Object key, long bundleId, String bundle) {}

    /** A transport with the map operations that its own bundle registered. */
    record UsableTransport(TransportProvider provider, MapOps ops, String name, String bundle) {}

    /** A driver with its bundle. */
    record UsableDriver(VirtioDriver driver, String bundle) {}

    private static final Logger LOG = System.getLogger(Services.class.getPackageName());

    private final List<Provided<TransportProvider>> transports = new CopyOnWriteArrayList<>();
    private final List<Provided<MapOps>> mapOps = new CopyOnWriteArrayList<>();
    private final List<Provided<VirtioDriver>> drivers = new CopyOnWriteArrayList<>();
    private final List<Provided<Exporter>> exporters = new CopyOnWriteArrayList<>();
    private final List<Provided<BackendProvider>> backends = new CopyOnWriteArrayList<>();

    void addTransport(ServiceReference<TransportProvider> reference, TransportProvider provider) {
        add(transports, reference, provider, provider::name);
    }

    void addMapOps(ServiceReference<MapOps> reference, MapOps ops) {
        add(mapOps, reference, ops, () -> "");
    }

    void addDriver(ServiceReference<VirtioDriver> reference, VirtioDriver driver) {
        add(drivers, reference, driver, driver::deviceType);
    }

    void addExporter(ServiceReference<Exporter> reference, Exporter exporter) {
        add(exporters, reference, exporter, exporter::name);
    }

    void addBackend(ServiceReference<BackendProvider> reference, BackendProvider provider) {
        add(backends, reference, provider, provider::name);
    }

    void removeTransport(TransportProvider provider) {
        remove(transports, provider);
    }

    void removeMapOps(MapOps ops) {
        remove(mapOps, ops);
    }

    void removeDriver(VirtioDriver driver) {
        remove(drivers, driver);
    }

    void removeExporter(Exporter exporter) {
        remove(exporters, exporter);
    }

    void removeBackend(BackendProvider provider) {
        remove(backends, provider);
    }

    private static <T> void remove(List<Provided<T>> kind, T service) {
        kind.removeIf(provided -> provided.service() == service);
    }

    /**
     * The transport of that name.
     *
     * @throws VirtioException when there is none, or none with map operations, naming it
     */
    UsableTransport transport(String name) throws VirtioException {
        List<Provided<TransportProvider>> named = find(transports, name);
        for (Provided<TransportProvider> transport : named) {
            MapOps ops = mapOpsOf(transport);
            if (ops != null) {
                return new UsableTransport(transport.service(), ops, name, transport.bundle());
            }
        }
        throw new VirtioException(
                named.isEmpty()
                        ? "no transport %s is here%s".formatted(name, known(transports))
                        : refusal(named.getFirst()));
    }

    /** Whether both of its services are still there. */
    boolean has(UsableTransport transport) {
        return contains(transports, transport.provider()) && contains(mapOps, transport.ops());
    }

    /** The driver for that device type, an error when there is none. */
    UsableDriver driver(int deviceType) throws VirtioException {
        List<Provided<VirtioDriver>> found = find(drivers, deviceType);
        if (found.isEmpty()) {
            throw new VirtioException(
                    "no driver for %s devices is here".formatted(DeviceType.name(deviceType)));
        }
        return new UsableDriver(found.getFirst().service(), found.getFirst().bundle());
    }

    boolean has(UsableDriver driver) {
        return contains(drivers, driver.driver());
    }

    /** The device end of the transport of that name, an error when there is none. */
    Exporter exporter(String name) throws VirtioException {
        List<Provided<Exporter>> found = find(exporters, name);
        if (found.isEmpty()) {
            throw new VirtioException(
                    "no transport %s that exports is here%s".formatted(name, known(exporters)));
        }
        return found.getFirst().service();
    }

    boolean has(Exporter exporter) {
        return contains(exporters, exporter);
    }

    /** The provider of backends of that name, an error when there is none. */
    BackendProvider backend(String name) throws VirtioException {
        List<Provided<BackendProvider>> found = find(backends, name);
        if (found.isEmpty()) {
            throw new VirtioException("no backend %s is here%s".formatted(name, known(backends)));
        }
        return found.getFirst().service();
    }

    boolean has(BackendProvider provider) {
        return contains(backends, provider);
    }

    /** What all transports could attach, and why some can neither attach nor offer anything. */
    List<Candidate> candidates() {
        List<Candidate> candidates = new ArrayList<>();
        for (Provided<TransportProvider> transport : transports) {
            String own = transport.key() + ":";
            if (mapOpsOf(transport) == null) {
                candidates.add(new Candidate(own, transport.bundle(), refusal(transport)));
                continue;
            }
            try {
                candidates.addAll(transport.service().discover());
            } catch (RuntimeException | LinkageError e) {
                candidates.add(new Candidate(own, transport.bundle(), "its discovery threw " + e));
            }
        }
        for (Provided<Exporter> exporter : exporters) {
            String unavailable;
            try {
                unavailable = exporter.service().unavailable();
            } catch (RuntimeException | LinkageError e) {
                unavailable = "it threw " + e;
            }
            if (unavailable != null) {
                candidates.add(new Candidate(exporter.key() + ":", exporter.bundle(), unavailable));
            }
        }
        return candidates;
    }

    private MapOps mapOpsOf(Provided<TransportProvider> transport) {
        return mapOps.stream()
                .filter(ops -> ops.bundleId() == transport.bundleId())
                .max(Comparator.comparing(Provided::reference))
                .map(Provided::service)
                .orElse(null);
    }

    private static String refusal(Provided<TransportProvider> transport) {
        return ("transport %s is refused: its bundle %s registers no MapOps, and nothing may be"
                        + " guessed about how its devices see memory")
                .formatted(transport.key(), transport.bundle());
    }

    private static String known(List<? extends Provided<?>> kind) {
        List<String> names =
                kind.stream().map(p -> p.key().toString()).distinct().sorted().toList();
        return names.isEmpty() ? "" : " (here: " + String.join(", ", names) + ")";
    }

    /** Those with that key, the highest ranking first. */
    private static <T> List<Provided<T>> find(List<Provided<T>> kind, Object key) {
        return kind.stream()
                .filter(provided -> provided.key().equals(key))
                .sorted(
                        Comparator.<Provided<T>, ServiceReference<T>>comparing(Provided::reference)
                                .reversed())
                .toList();
    }

    private static boolean contains(List<? extends Provided<?>> kind, Object service) {
        return kind.stream().anyMatch(provided -> provided.service() == service);
    }

    private static <T> void add(
            List<Provided<T>> kind,
            ServiceReference<T> reference,
            T service,
            Supplier<Object> key) {
        Bundle bundle = reference.getBundle();
        if (bundle == null) {
            return; // Unregistered already: its unbinding follows.
        }
        String label = bundle.getSymbolicName() + " " + bundle.getVersion();
        try {
            Object known = Objects.requireNonNull(key.get(), "its name is null");
            kind.add(new Provided<>(reference, service, known, bundle.getBundleId(), label));
        } catch (RuntimeException | LinkageError e) {
            LOG.log(Level.WARNING, "a service of {0} is not used: {1}", label, e.toString());
        }
    }
}
