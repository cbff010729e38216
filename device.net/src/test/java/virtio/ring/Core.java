package virtio.ring;

import org.osgi.framework.Bundle;
import org.osgi.framework.ServiceReference;
import org.osgi.framework.Version;

import virtio.api.VirtioBus;
import virtio.api.VirtioDriver;
import virtio.api.backend.BackendProvider;
import virtio.api.map.MapOps;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.concurrent.atomic.AtomicLong;

/** The real core without a framework: a test binds and unbinds what it is to find. */
public final class Core implements AutoCloseable {
    private static final AtomicLong IDS = new AtomicLong();

    private final Bus bus = new Bus();

    /** With these waits. */
    public Core(long swapTimeoutMillis, long drainTimeoutMillis) {
        bus.configure(new Settings(swapTimeoutMillis, drainTimeoutMillis, 10));
    }

    /** The core's service. */
    public VirtioBus bus() {
        return bus;
    }

    /** Both ends of a transport, from one bundle. */
    public <T extends TransportProvider & Exporter> void bindTransport(T transport, MapOps ops) {
        Bundle bundle = bundle("transport");
        bus.bindMapOps(reference(bundle), ops);
        bus.bindTransport(reference(bundle), transport);
        bus.bindExporter(reference(bundle), transport);
    }

    /** The device end of a transport comes. */
    public void bindExporter(Exporter exporter) {
        bus.bindExporter(reference(bundle("exporter")), exporter);
    }

    /** The driver's end of a transport leaves. */
    public void unbindTransport(TransportProvider transport, MapOps ops) {
        bus.unbindTransport(transport);
        bus.unbindMapOps(ops);
    }

    /** The driver's end of a transport comes back. */
    public void rebindTransport(TransportProvider transport, MapOps ops) {
        Bundle bundle = bundle("transport");
        bus.bindMapOps(reference(bundle), ops);
        bus.bindTransport(reference(bundle), transport);
    }

    /** A driver comes. */
    public void bindDriver(VirtioDriver driver) {
        bus.bindDriver(reference(bundle("driver")), driver);
    }

    /** A driver leaves. */
    public void unbindDriver(VirtioDriver driver) {
        bus.unbindDriver(driver);
    }

    /** Backends of one kind come. */
    public void bindBackend(BackendProvider backend) {
        bus.bindBackend(reference(bundle("backend")), backend);
    }

    @Override
    public void close() {
        bus.deactivate();
    }

    private static Bundle bundle(String name) {
        long id = IDS.incrementAndGet();
        return proxy(
                Bundle.class,
                (self, method, arguments) ->
                        switch (method.getName()) {
                            case "getBundleId" -> id;
                            case "getSymbolicName", "toString" -> name;
                            case "getVersion" -> new Version(1, 0, 0);
                            case "hashCode" -> (int) id;
                            case "equals" -> self == arguments[0];
                            default -> throw new UnsupportedOperationException(method.getName());
                        });
    }

    @SuppressWarnings("unchecked")
    private static <T> ServiceReference<T> reference(Bundle bundle) {
        long id = IDS.incrementAndGet();
        return proxy(
                ServiceReference.class,
                (self, method, arguments) ->
                        switch (method.getName()) {
                            case "getBundle" -> bundle;
                            case "compareTo" -> Long.compare(arguments[0].hashCode(), id);
                            case "hashCode" -> (int) id;
                            case "equals" -> self == arguments[0];
                            case "toString" -> "reference " + id;
                            default -> throw new UnsupportedOperationException(method.getName());
                        });
    }

    private static <T> T proxy(Class<T> type, InvocationHandler handler) {
        return type.cast(
                Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
    }
}
