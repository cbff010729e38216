package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;
import org.osgi.framework.ServiceReference;
import org.osgi.service.cm.Configuration;
import org.osgi.service.cm.ConfigurationAdmin;

import virtio.api.VirtioBus;
import virtio.api.VirtioDevice;
import virtio.api.block.BlockDevice;
import virtio.api.net.NetDevice;
import virtio.api.status.DeviceSnapshot;
import virtio.api.transport.Exporter;
import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.util.ArrayList;
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
    static final String NET_DRIVER = "virtio.device.net";
    static final String NET_BACKENDS = "virtio.backend.net";
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
        for (String name :
                List.of(CORE, MMIO, VHOST_USER, BACKENDS, NET_BACKENDS, DRIVER, NET_DRIVER)) {
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

    /** The device end of the transport of that name. */
    Exporter exporter(String name) throws Exception {
        for (ServiceReference<Exporter> reference :
                context.getServiceReferences(Exporter.class, null)) {
            Exporter exporter = context.getService(reference);
            if (exporter.name().equals(name)) {
                return exporter;
            }
        }
        throw new AssertionError("no exporter " + name);
    }

    VirtioBus bus() throws Exception {
        return service(VirtioBus.class);
    }

    /** The disk, waited for. */
    BlockDevice disk(String name) throws Exception {
        return device(BlockDevice.class, name);
    }

    /** The disk; null when there is none now. */
    BlockDevice diskNow(String name) throws Exception {
        return deviceNow(BlockDevice.class, name);
    }

    /** The network card, waited for. */
    NetDevice card(String name) throws Exception {
        return device(NetDevice.class, name);
    }

    /** The network card; null when there is none now. */
    NetDevice cardNow(String name) throws Exception {
        return deviceNow(NetDevice.class, name);
    }

    private <T> T device(Class<T> type, String name) throws Exception {
        AtomicReference<T> found = new AtomicReference<>();
        Wait.until(
                type.getSimpleName() + " " + name,
                () -> {
                    found.set(deviceNow(type, name));
                    return found.get() != null;
                });
        return found.get();
    }

    /** By the property that disks and cards share. */
    private <T> T deviceNow(Class<T> type, String name) throws Exception {
        for (ServiceReference<T> reference :
                context.getServiceReferences(type, "(" + VirtioDevice.NAME + "=" + name + ")")) {
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
        for (String name :
                List.of(DRIVER, NET_DRIVER, BACKENDS, NET_BACKENDS, MMIO, VHOST_USER, CORE)) {
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

    static List<String> threads() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> name.startsWith("virtio-"))
                .sorted()
                .toList();
    }
}
