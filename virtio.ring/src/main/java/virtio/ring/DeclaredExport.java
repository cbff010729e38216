package virtio.ring;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.api.status.ExportSnapshot;
import virtio.api.transport.Export;
import virtio.api.transport.Exporter;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * A declared export: offered while backend and transport are there.
 *
 * <p>The backend lives as long as its declaration and its provider: a transport that goes and comes
 * back offers the same one, with what it holds. Everything happens in steps of its own {@link
 * Lifecycle}.
 */
final class DeclaredExport {
    /** The longest pause between two attempts to offer a backend. */
    private static final long RETRY_MILLIS = 5_000;

    private static final Logger LOG = System.getLogger(DeclaredExport.class.getPackageName());

    private final String spec;
    private final String address;
    private final Services services;
    private final Supplier<Settings> settings;
    private final Consumer<DeclaredExport> letGo;
    private final Lifecycle lifecycle;
    private final AtomicBoolean advancing = new AtomicBoolean();

    private volatile BackendProvider providerInUse;
    private volatile Exporter exporterInUse;
    private volatile Export export;
    private volatile int deviceType;
    private volatile String reason = "not tried yet";

    // Of the lifecycle's steps only.
    private Backend backend;
    private ExportedBackend device;
    private boolean removed;
    private long retryMillis;
    private Future<?> retry;

    /**
     * @param letGo told when it is withdrawn for good
     */
    DeclaredExport(
            String spec,
            String address,
            Services services,
            Supplier<Settings> settings,
            Consumer<DeclaredExport> letGo) {
        this.spec = spec;
        this.address = address;
        this.services = services;
        this.settings = settings;
        this.letGo = letGo;
        lifecycle = new Lifecycle("export-" + address);
    }

    String address() {
        return address;
    }

    Lifecycle lifecycle() {
        return lifecycle;
    }

    /** Offers the backend at once, or fails and lets it go. */
    ExportSnapshot export() throws VirtioException {
        String what = "export " + spec + " " + address;
        Future<ExportSnapshot> step =
                lifecycle.submit(
                        what,
                        () -> {
                            try {
                                offer();
                                return snapshot();
                            } catch (VirtioException e) {
                                remove();
                                throw e;
                            }
                        });
        try {
            return Lifecycle.await(what, step, settings.get().operationMillis());
        } catch (VirtioException e) {
            step.cancel(true);
            close();
            throw e;
        }
    }

    /** Sees what can be done now: services have come, or the export is new. */
    void advance() {
        if (advancing.compareAndSet(false, true)) {
            lifecycle.post(
                    () -> {
                        advancing.set(false);
                        retryMillis = 0;
                        step();
                    });
        }
    }

    /** Lets go of a service that left; null when it is not in use, else the step to wait for. */
    Future<?> depart(Object service) throws VirtioException {
        if (service == providerInUse || service == exporterInUse) {
            return lifecycle.submitOrEnd(address + ": letting go of its services", this::leave);
        }
        return null;
    }

    /** Withdraws it for good; the step to wait for. */
    Future<?> unexport() throws VirtioException {
        Future<?> step = lifecycle.submit("unexport " + address, this::remove);
        lifecycle.close();
        return step;
    }

    /** As {@link #unexport}, with nobody waiting. */
    void close() {
        lifecycle.post(this::remove);
        lifecycle.close();
    }

    ExportSnapshot snapshot() {
        Export now = export;
        String driver = null;
        if (now != null) {
            try {
                driver = now.driver();
            } catch (RuntimeException | Error e) {
                driver = "unknown: " + e;
            }
        }
        return new ExportSnapshot(spec, address, deviceType, driver, reason);
    }

    // From here on: steps.

    private void step() {
        if (removed || export != null) {
            return;
        }
        try {
            offer();
        } catch (VirtioException e) {
            if (!e.getMessage().equals(reason)) {
                reason = e.getMessage();
                LOG.log(Level.INFO, "{0} is not offered at {1}: {2}", spec, address, reason);
            }
            long least = settings.get().reconnectIntervalMillis();
            retryMillis = Math.max(least, Math.min(2 * retryMillis, RETRY_MILLIS));
            if (servicesAreHere()) {
                if (retry != null) {
                    retry.cancel(false);
                }
                retry = lifecycle.postLater(this::step, retryMillis);
            }
        }
    }

    private boolean servicesAreHere() {
        try {
            services.backend(DeviceSteps.scheme(spec));
            services.exporter(DeviceSteps.scheme(address));
            return true;
        } catch (VirtioException e) {
            return false;
        }
    }

    private void offer() throws VirtioException {
        if (removed) {
            throw new VirtioException(address + " is let go");
        }
        Exporter exporter = services.exporter(DeviceSteps.scheme(address));
        if (backend == null) {
            open();
        }
        exporterInUse = exporter;
        if (!services.has(exporter)) {
            exporterInUse = null;
            throw new VirtioException("the transport of " + address + " is just leaving");
        }
        try {
            export = exporter.export(rest(address), device);
        } catch (RuntimeException | Error e) {
            throw new VirtioException(address + ": the transport's export threw " + e, e);
        } finally {
            if (export == null) {
                exporterInUse = null;
            }
        }
        if (export == null) {
            throw new VirtioException(address + ": the transport's export returned null");
        }
        reason = null;
        retryMillis = 0;
        LOG.log(Level.INFO, "{0} is offered at {1}", spec, address);
    }

    private void open() throws VirtioException {
        BackendProvider provider = services.backend(DeviceSteps.scheme(spec));
        providerInUse = provider;
        try {
            if (!services.has(provider)) {
                throw new VirtioException("the provider of " + spec + " is just leaving");
            }
            backend = provider.open(rest(spec));
            if (backend == null) {
                throw new VirtioException(spec + ": the provider's open returned null");
            }
            device = new ExportedBackend(spec, backend);
            deviceType = device.deviceType();
        } catch (RuntimeException | Error e) {
            throw new VirtioException(spec + ": the provider's open threw " + e, e);
        } finally {
            if (device == null) {
                closeBackend();
            }
        }
    }

    private Void leave() {
        if (exporterInUse != null && !services.has(exporterInUse)) {
            withdraw("the transport of " + address + " left");
        }
        if (providerInUse != null && !services.has(providerInUse)) {
            withdraw("the provider of " + spec + " left");
            closeBackend();
        }
        step();
        return null;
    }

    private Void remove() {
        if (!removed) {
            removed = true;
            withdraw("withdrawn");
            closeBackend();
            letGo.accept(this);
        }
        return null;
    }

    private void withdraw(String why) {
        reason = why;
        Export old = export;
        export = null;
        if (old != null) {
            contain("close", old::close);
            contain("reset", device::reset);
            LOG.log(Level.INFO, "{0} is no longer offered at {1}: {2}", spec, address, why);
        }
        // In use up to here: its bundle must not go while it closes.
        exporterInUse = null;
    }

    private void closeBackend() {
        Backend old = backend;
        backend = null;
        device = null;
        if (old != null) {
            contain("the backend's close", old::close);
        }
        providerInUse = null;
    }

    private void contain(String method, Runnable call) {
        try {
            call.run();
        } catch (RuntimeException | Error e) {
            LOG.log(Level.WARNING, "{0}: {1} threw {2}", address, method, e.toString());
        }
    }

    private static String rest(String address) {
        return address.substring(address.indexOf(':') + 1);
    }
}
