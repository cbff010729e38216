package virtio.ring;

import org.osgi.framework.Bundle;

import virtio.api.VirtioBus;
import virtio.api.VirtioDriver;
import virtio.api.backend.BackendProvider;
import virtio.api.map.MapOps;
import virtio.api.transport.Exporter;
import virtio.api.transport.TransportProvider;

/**
 * The real core without a framework, for tests of drivers: they bind and unbind what it is to find.
 */
public final class Core implements AutoCloseable {
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
        Bundle bundle = FakeReference.bundle("transport");
        bus.bindMapOps(FakeReference.to(bundle), ops);
        bus.bindTransport(FakeReference.to(bundle), transport);
        bus.bindExporter(FakeReference.to(bundle), transport);
    }

    /** The device end of a transport comes. */
    public void bindExporter(Exporter exporter) {
        bus.bindExporter(FakeReference.to(FakeReference.bundle("exporter")), exporter);
    }

    /** The driver's end of a transport leaves. */
    public void unbindTransport(TransportProvider transport, MapOps ops) {
        bus.unbindTransport(transport);
        bus.unbindMapOps(ops);
    }

    /** The driver's end of a transport comes back. */
    public void rebindTransport(TransportProvider transport, MapOps ops) {
        Bundle bundle = FakeReference.bundle("transport");
        bus.bindMapOps(FakeReference.to(bundle), ops);
        bus.bindTransport(FakeReference.to(bundle), transport);
    }

    /** A driver comes. */
    public void bindDriver(VirtioDriver driver) {
        bus.bindDriver(FakeReference.to(FakeReference.bundle("driver")), driver);
    }

    /** A driver leaves. */
    public void unbindDriver(VirtioDriver driver) {
        bus.unbindDriver(driver);
    }

    /** Backends of one kind come. */
    public void bindBackend(BackendProvider backend) {
        bus.bindBackend(FakeReference.to(FakeReference.bundle("backend")), backend);
    }

    @Override
    public void close() {
        bus.deactivate();
    }
}
