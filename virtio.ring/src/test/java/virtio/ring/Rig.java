package virtio.ring;

import org.osgi.framework.Bundle;

import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/** A bus with test doubles for everything that it meets, to be bound and unbound one by one. */
final class Rig implements AutoCloseable {
    static final long LIMIT_SECONDS = 20;

    final Bus bus = new Bus();
    final LoopTransport loop = new LoopTransport("loop");
    final EchoDriver driver = new EchoDriver();
    final EchoBackend.Provider backend = new EchoBackend.Provider();
    private final Bundle transportBundle = FakeReference.bundle("test.loop");
    private final Bundle driverBundle = FakeReference.bundle("test.driver");
    private final Bundle backendBundle = FakeReference.bundle("test.backend");

    Rig() {
        this(new Settings(LIMIT_SECONDS * 1000, 1000, 10));
    }

    Rig(Settings settings) {
        bus.configure(settings);
    }

    /** With everything bound and a device of capacity 1000 exported at loop:a. */
    static Rig complete() throws VirtioException {
        return complete(new Settings(LIMIT_SECONDS * 1000, 1000, 10));
    }

    static Rig complete(Settings settings) throws VirtioException {
        Rig rig = new Rig(settings);
        rig.bindBackend();
        rig.bindExporter();
        rig.bindMapOps();
        rig.bindTransport();
        rig.bindDriver();
        rig.bus.export("echo:1000", "loop:a");
        return rig;
    }

    void bindTransport() {
        bus.bindTransport(FakeReference.to(transportBundle), loop);
    }

    void unbindTransport() {
        bus.unbindTransport(loop);
    }

    void bindMapOps() {
        bus.bindMapOps(FakeReference.to(transportBundle), loop.ops);
    }

    void unbindMapOps() {
        bus.unbindMapOps(loop.ops);
    }

    void bindExporter() {
        bus.bindExporter(FakeReference.to(transportBundle), loop);
    }

    void unbindExporter() {
        bus.unbindExporter(loop);
    }

    void bindDriver() {
        bus.bindDriver(FakeReference.to(driverBundle), driver);
    }

    void unbindDriver() {
        bus.unbindDriver(driver);
    }

    void bindBackend() {
        bus.bindBackend(FakeReference.to(backendBundle), backend);
    }

    void unbindBackend() {
        bus.unbindBackend(backend);
    }

    DeviceSnapshot device() {
        return bus.devices().getFirst();
    }

    void await(State state) throws TimeoutException {
        await(() -> !bus.devices().isEmpty() && device().state() == state, state.toString());
    }

    void await(BooleanSupplier condition, String what) throws TimeoutException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_SECONDS);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() - end > 0) {
                throw new TimeoutException(
                        "not %s within %d s: %s".formatted(what, LIMIT_SECONDS, bus.devices()));
            }
            LockSupport.parkNanos(200_000);
        }
    }

    /** One request through driver, ring and backend. */
    long ask(long value) throws Exception {
        return driver.last.ask(value).get(LIMIT_SECONDS, TimeUnit.SECONDS);
    }

    static long virtioThreads() {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(thread -> thread.getName().startsWith("virtio-"))
                .count();
    }

    @Override
    public void close() {
        loop.release.countDown();
        bus.deactivate();
    }
}
