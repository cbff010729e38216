package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;
import org.osgi.framework.ServiceReference;
import org.osgi.service.cm.Configuration;
import org.osgi.service.cm.ConfigurationAdmin;

import virtio.api.VirtioBus;
import virtio.api.block.BlockDevice;
import virtio.api.status.DeviceSnapshot;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Dictionary;
import java.util.HashSet;
import java.util.Hashtable;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;

/** What tests do with the container they run in. */
final class Container {
    static final String MMIO = "virtio.transport.mmio";
    static final String VHOST_USER = "virtio.transport.vhostuser";
    static final String DRIVER = "virtio.device.blk";
    static final String BACKENDS = "virtio.backend.blk";
    static final String CORE = "virtio.ring";

    private final BundleContext context;
    private final List<Configuration> declared = new ArrayList<>();

    /** Of everything this test has declared. */
    private final Set<String> addresses = new HashSet<>();

    Container(BundleContext context) {
        this.context = context;
    }

    Bundle bundle(String name) throws Exception {
        // FileInstall may still be about to install it.
        Wait.until("bundle " + name, () -> find(name) != null);
        return find(name);
    }

    Bundle find(String name) {
        for (Bundle bundle : context.getBundles()) {
            if (bundle.getSymbolicName().equals(name)) {
                return bundle;
            }
        }
        return null;
    }

    /** Starts what an earlier test may have left stopped. */
    void startAll() throws Exception {
        for (String name : List.of(CORE, MMIO, VHOST_USER, BACKENDS, DRIVER)) {
            bundle(name).start();
        }
    }

    /** What the operator sets for the core. */
    void configureBus(long swapTimeoutMillis, long drainTimeoutMillis) throws Exception {
        Map<String, Object> settings =
                Map.of(
                        "swapTimeoutMillis", swapTimeoutMillis,
                        "drainTimeoutMillis", drainTimeoutMillis,
                        "reconnectIntervalMillis", 20L);
        Configuration configuration = admin().getConfiguration("virtio.bus", "?");
        Dictionary<String, Object> known = configuration.getProperties();
        for (String key : settings.keySet()) {
            if (known == null || !settings.get(key).equals(known.get(key))) {
                configuration.update(new Hashtable<>(settings));
                return;
            }
        }
    }

    void declareExport(String backend, String address) throws Exception {
        declare("virtio.export", Map.of("backend", backend, "address", address));
    }

    void declareAttachment(String address, String name) throws Exception {
        declare("virtio.attach", Map.of("address", address, "name", name));
    }

    private void declare(String pid, Map<String, Object> properties) throws Exception {
        Configuration configuration = admin().createFactoryConfiguration(pid, "?");
        configuration.update(new Hashtable<>(properties));
        declared.add(configuration);
        addresses.add((String) properties.get("address"));
    }

    /** Takes back what was declared. */
    void undeclare() throws Exception {
        for (Configuration configuration : declared) {
            configuration.delete();
        }
        declared.clear();
        // That is done on a thread of the administration.
        Wait.until("declarations to be taken back", () -> !declares());
    }

    private boolean declares() throws Exception {
        ServiceReference<VirtioBus> reference = context.getServiceReference(VirtioBus.class);
        VirtioBus bus = reference == null ? null : context.getService(reference);
        return bus != null
                && (bus.devices().stream().anyMatch(d -> addresses.contains(d.address()))
                        || bus.exports().stream().anyMatch(e -> addresses.contains(e.address())));
    }

    private ConfigurationAdmin admin() throws Exception {
        return service(ConfigurationAdmin.class);
    }

    <T> T service(Class<T> type) throws Exception {
        List<T> found = new ArrayList<>();
        Wait.until(
                type.getSimpleName(),
                () -> {
                    ServiceReference<T> reference = context.getServiceReference(type);
                    T service = reference == null ? null : context.getService(reference);
                    if (service != null) {
                        found.add(service);
                    }
                    return service != null;
                });
        return found.getFirst();
    }

    VirtioBus bus() throws Exception {
        return service(VirtioBus.class);
    }

    /** The disk, waited for. */
    BlockDevice disk(String name) throws Exception {
        AtomicReference<BlockDevice> found = new AtomicReference<>();
        Wait.until(
                "disk " + name,
                () -> {
                    found.set(diskNow(name));
                    return found.get() != null;
                });
        return found.get();
    }

    /** The disk; null when there is none now. */
    BlockDevice diskNow(String name) throws Exception {
        Collection<ServiceReference<BlockDevice>> found =
                context.getServiceReferences(
                        BlockDevice.class, "(" + BlockDevice.NAME + "=" + name + ")");
        for (ServiceReference<BlockDevice> reference : found) {
            return context.getService(reference);
        }
        return null;
    }

    DeviceSnapshot snapshot(String name) throws Exception {
        return bus().devices().stream()
                .filter(device -> device.name().equals(name))
                .findFirst()
                .orElseThrow(() -> new AssertionError("no device " + name));
    }

    void awaitState(String name, DeviceSnapshot.State state) throws Exception {
        Wait.until(name + " to be " + state, () -> snapshot(name).state() == state);
    }

    /** Takes back every attachment and export, and sees that nothing is held any more. */
    void clear() throws Exception {
        undeclare();
        startAll();
        VirtioBus bus = bus();
        for (DeviceSnapshot device : bus.devices()) {
            bus.detach(device.name());
        }
        for (var export : bus.exports()) {
            bus.unexport(export.address());
        }
    }

    /** Stops all of ours but the API, and sees that they have given everything back. */
    void stopAllAndSeeNothingIsLeft() throws Exception {
        for (String name : List.of(DRIVER, BACKENDS, MMIO, VHOST_USER, CORE)) {
            bundle(name).stop();
        }
        nothingIsHeld();
        Wait.until("no thread of ours, but there are " + threads(), () -> threads().isEmpty());
    }

    static void nothingIsHeld() throws Exception {
        long start = System.nanoTime();
        while (held() != 0 && System.nanoTime() - start < 5_000_000_000L) {
            Thread.sleep(2);
        }
        assertEquals(0, Mapping.live(), "mappings");
        assertEquals(0, FileDescriptor.live(), "descriptors");
    }

    private static int held() {
        return Mapping.live() + FileDescriptor.live();
    }

    private static List<String> threads() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> name.startsWith("virtio-"))
                .sorted()
                .toList();
    }
}
