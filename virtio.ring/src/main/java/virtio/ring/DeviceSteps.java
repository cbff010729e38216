package virtio.ring;

import virtio.api.DeviceStatus;
import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;
import virtio.api.status.SwapResult;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;

/**
 * What happens to an attached device: brought up when transport and driver are there, frozen while
 * its transport is lost, let go when its driver leaves. A device without a driver holds nothing.
 *
 * <p>Threading: all methods are steps of the device's {@link Lifecycle}, but for {@link #address},
 * {@link #snapshot}, {@link #uses} and what {@link LiveDevice.Events} report.
 */
final class DeviceSteps implements LiveDevice.Events {
    /** The longest pause between two attempts to bring up a device that waits. */
    private static final long RETRY_MILLIS = 5_000;

    /** A device that is lost again within this time was not really back. */
    private static final long STABLE_MILLIS = 1_000;

    private static final Logger LOG = System.getLogger(DeviceSteps.class.getPackageName());

    private final AttachedDevice device;
    private final Services services;
    private final Supplier<Settings> settings;
    private final Lifecycle lifecycle;
    private final Patience patience;
    private final AtomicBoolean configChanging = new AtomicBoolean();

    // Whoever takes a service into use says so here first and sees second whether it is still
    // there; whoever unregisters it does it the other way round. One of the two finds out.
    private volatile Services.UsableTransport opening;
    private volatile Services.UsableTransport transportInUse;
    private volatile Services.UsableDriver driverInUse;

    private volatile String address;
    private volatile DeviceView view;

    private LiveDevice live;
    private BoundDriver driver;
    private State state = State.WAITING;
    private String reason = "not tried yet";
    private int deviceType;
    private boolean removed;
    private long frozenNanos;
    private long lostNanos;
    private long restoredNanos;
    private long retryMillis;
    private Future<?> retry;
    private int swaps;
    private long lastPauseNanos;

    DeviceSteps(
            AttachedDevice device,
            String address,
            Services services,
            Supplier<Settings> settings,
            Lifecycle lifecycle) {
        this.device = device;
        this.address = address;
        this.services = services;
        this.settings = settings;
        this.lifecycle = lifecycle;
        patience = new Patience(address);
        publish();
    }

    String address() {
        return address;
    }

    /** Whether it holds that transport, driver or those map operations. */
    boolean uses(Object service) {
        Services.UsableDriver used = driverInUse;
        return uses(opening, service)
                || uses(transportInUse, service)
                || used != null && used.driver() == service;
    }

    private static boolean uses(Services.UsableTransport transport, Object service) {
        return transport != null && (transport.provider() == service || transport.ops() == service);
    }

    DeviceSnapshot snapshot() {
        return view.snapshot(device.name(), address);
    }

    @Override
    public void configChanged() {
        if (configChanging.compareAndSet(false, true)) {
            lifecycle.post(
                    () -> {
                        configChanging.set(false);
                        // A device that came meanwhile may have reported behind the one that left.
                        if (live != null) {
                            readStatus();
                        }
                    });
        }
    }

    @Override
    public void lost(LiveDevice reporter, String why) {
        lifecycle.post(
                () -> {
                    if (reporter == live) {
                        loseAndRetry(why);
                    }
                });
    }

    @Override
    public long swapTimeoutMillis() {
        return settings.get().swapTimeoutMillis();
    }

    /** Brings it up, or lets it go. */
    DeviceSnapshot attach() throws VirtioException {
        try {
            bringUp();
            publish();
            return snapshot();
        } catch (VirtioException e) {
            letGo();
            throw e;
        }
    }

    /** Sees what can be done now that services have come. */
    void advance() {
        retryMillis = 0;
        step();
    }

    /** Lets go of what is in use of services that are no longer there. */
    void leave() {
        if (live != null && !services.has(live.transport().service())) {
            String left = live.transport().service().bundle();
            lose("transport " + left + " left", settings.get().drainTimeoutMillis());
        }
        if (driver != null && !services.has(driver.service())) {
            reason = "driver " + driver.service().bundle() + " left";
            LOG.log(Level.INFO, "{0} waits: {1}", device.name(), reason);
            release();
        }
        step();
    }

    /** Lets everything go, for good. */
    void letGo() {
        if (!removed) {
            removed = true;
            reason = "detached";
            patience.close();
            if (driver != null) {
                release();
                LOG.log(Level.INFO, "{0} is detached", device.name());
            }
            publish();
            device.gone();
        }
    }

    /** Moves the device to another address, or the same one anew. */
    SwapResult swap(String to) throws VirtioException {
        String from = address;
        if (driver == null) {
            throw new VirtioException(
                    "%s waits, there is nothing to swap: %s".formatted(device.name(), reason));
        }
        try {
            if (live == null) {
                replaceLost(to);
            } else if (to.equals(from)) {
                reopen();
            } else {
                replaceLive(to);
            }
        } finally {
            publish();
        }
        LOG.log(
                Level.INFO,
                "{0} moved from {1} to {2}, paused for {3} us",
                device.name(),
                from,
                to,
                lastPauseNanos / 1000);
        return new SwapResult(device.name(), from, to, lastPauseNanos);
    }

    private void publish() {
        // In this order, so that uses() misses nothing in between.
        transportInUse = live != null ? live.transport().service() : null;
        opening = null;
        driverInUse = driver != null ? driver.service() : null;
        view =
                new DeviceView(
                        state,
                        reason,
                        deviceType,
                        live,
                        driver,
                        frozenNanos,
                        swaps,
                        lastPauseNanos);
    }

    private void step() {
        try {
            if (!removed && live == null) {
                if (driver == null) {
                    tryBringUp();
                } else {
                    tryReconnect();
                }
            }
        } finally {
            publish();
        }
    }

    private void tryBringUp() {
        try {
            if (deviceType != 0) {
                services.driver(deviceType); // Do not open a device that nobody would drive.
            }
            bringUp();
        } catch (VirtioException e) {
            if (!e.getMessage().equals(reason)) {
                reason = e.getMessage();
                LOG.log(Level.INFO, "{0} waits: {1}", device.name(), reason);
            }
            long least = settings.get().reconnectIntervalMillis();
            retryMillis = Math.max(least, Math.min(2 * retryMillis, RETRY_MILLIS));
            if (servicesAreHere()) {
                retryLater(retryMillis);
            }
        }
    }

    /** Whether trying again makes sense without a service coming first. */
    private boolean servicesAreHere() {
        try {
            services.transport(scheme(address));
            if (deviceType != 0) {
                services.driver(deviceType);
            }
            return true;
        } catch (VirtioException e) {
            return false;
        }
    }

    private void retryLater(long millis) {
        if (retry != null) {
            retry.cancel(false);
        }
        retry = lifecycle.postLater(this::step, millis);
    }

    private void bringUp() throws VirtioException {
        if (removed) {
            throw new VirtioException(device.name() + " is let go");
        }
        OpenTransport transport = open(address);
        try {
            deviceType = transport.deviceType();
            String name = device.name(deviceType);
            Services.UsableDriver service = services.driver(deviceType);
            driverInUse = service;
            if (!services.has(service)) {
                throw new VirtioException("driver " + service.bundle() + " is just leaving");
            }
            LiveDevice made = LiveDevice.negotiate(name, transport, service, this);
            driver = BoundDriver.probe(service, made);
            become(made);
            LOG.log(Level.INFO, "{0} is up: {1}, {2}", name, address, service.bundle());
        } catch (VirtioException e) {
            transport.close();
            throw e;
        }
    }

    private OpenTransport open(String where) throws VirtioException {
        Services.UsableTransport service = services.transport(scheme(where));
        opening = service;
        if (!services.has(service)) {
            throw new VirtioException("transport " + service.name() + " is just leaving");
        }
        return OpenTransport.open(where, service);
    }

    private void become(LiveDevice made) {
        live = made;
        state = State.ACTIVE;
        reason = null;
        retryMillis = 0;
        restoredNanos = System.nanoTime();
    }

    private boolean lose(String why, long drainMillis) {
        LOG.log(Level.WARNING, "{0} on {1} is frozen: {2}", device.name(), address, why);
        frozenNanos = System.nanoTime();
        boolean wasBack = swaps == 0 || frozenNanos - restoredNanos >= nanos(STABLE_MILLIS);
        if (wasBack) {
            lostNanos = frozenNanos;
        }
        LiveDevice old = live;
        if (drainMillis == 0) {
            old.fail(why);
        }
        driver.freeze(drainMillis);
        old.reset();
        old.transport().close();
        live = null;
        state = State.FROZEN;
        reason = why;
        publish();
        expectBack();
        return wasBack;
    }

    /** Loses it for a reason that may persist: tried again at once only when it had worked. */
    private void loseAndRetry(String why) {
        if (lose(why, 0)) {
            step();
        } else {
            retryLater(settings.get().reconnectIntervalMillis());
        }
    }

    private void tryReconnect() {
        try {
            reconnect(address);
            LOG.log(Level.INFO, "{0} is back on {1}", device.name(), address);
        } catch (VirtioException e) {
            reason = e.getMessage();
            if (servicesAreHere()) {
                retryLater(settings.get().reconnectIntervalMillis());
            }
        }
    }

    /** From now on consumers wait; no longer than the operator allows. */
    private void expectBack() {
        long limitMillis = settings.get().swapTimeoutMillis();
        long frozen = frozenNanos;
        patience.expect(
                driver,
                lostNanos + nanos(limitMillis),
                () -> view.state() == State.FROZEN && view.frozenNanos() == frozen,
                () ->
                        "%s is not back after %d ms: %s"
                                .formatted(device.name(), limitMillis, view.reason()));
    }

    /** The frozen driver goes on with what is at that address. */
    private void reconnect(String where) throws VirtioException {
        OpenTransport transport = open(where);
        try {
            LiveDevice made = driver.candidate(transport, this);
            driver.restore(made);
            resumed(made);
        } catch (VirtioException e) {
            transport.close();
            throw e;
        }
    }

    private void resumed(LiveDevice made) {
        become(made);
        swaps++;
        lastPauseNanos = restoredNanos - frozenNanos;
    }

    private void replaceLost(String to) throws VirtioException {
        try {
            reconnect(to);
            address = to;
        } catch (VirtioException e) {
            throw new VirtioException(
                    "%s is not moved to %s: %s; there is no way back, %s is lost and still looked for"
                            .formatted(device.name(), to, e.getMessage(), address),
                    e);
        }
    }

    private void reopen() throws VirtioException {
        lose("swap to the same address", settings.get().drainTimeoutMillis());
        tryReconnect();
        if (live == null) {
            throw new VirtioException(
                    "%s did not come back on %s and is looked for: %s"
                            .formatted(device.name(), address, reason));
        }
    }

    private void replaceLive(String to) throws VirtioException {
        OpenTransport transport = open(to);
        OpenTransport old = live.transport();
        try {
            LiveDevice made = driver.candidate(transport, this);
            frozenNanos = System.nanoTime();
            lostNanos = frozenNanos;
            driver.freeze(settings.get().drainTimeoutMillis());
            live.reset();
            live = null;
            try {
                driver.restore(made);
            } catch (VirtioException e) {
                goBack(old, e);
                throw e;
            }
            resumed(made);
            address = to;
            old.close();
        } catch (VirtioException e) {
            transport.close();
            throw new VirtioException(
                    "%s is not moved to %s: %s; %s"
                            .formatted(
                                    device.name(),
                                    to,
                                    e.getMessage(),
                                    live != null
                                            ? address + " serves on"
                                            : address + " does not come back either: " + reason),
                    e);
        }
    }

    /** The new device was not taken: the driver goes on with the old one, initialised again. */
    private void goBack(OpenTransport old, VirtioException why) {
        try {
            LiveDevice again = LiveDevice.negotiate(device.name(), old, driver.service(), this);
            driver.restore(again);
            become(again);
            lastPauseNanos = restoredNanos - frozenNanos;
        } catch (VirtioException e) {
            if (e != why) {
                why.addSuppressed(e);
            }
            old.close();
            state = State.FROZEN;
            reason = e.getMessage();
            publish();
            expectBack();
            retryLater(settings.get().reconnectIntervalMillis());
        }
    }

    private void readStatus() {
        try {
            if ((live.transport().status() & DeviceStatus.DEVICE_NEEDS_RESET) != 0) {
                loseAndRetry("the device set DEVICE_NEEDS_RESET");
            } else {
                driver.configChanged();
            }
        } catch (VirtioException e) {
            loseAndRetry(e.getMessage());
        }
    }

    /** Takes the device from its driver and gives everything back. */
    private void release() {
        if (live != null) {
            driver.freeze(settings.get().drainTimeoutMillis());
            live.reset();
        }
        driver.remove();
        driver = null;
        state = State.WAITING;
        if (live != null) {
            live.transport().close();
            live = null;
        }
    }

    private static long nanos(long millis) {
        return TimeUnit.MILLISECONDS.toNanos(millis);
    }

    static String scheme(String address) {
        return address.substring(0, address.indexOf(':'));
    }
}
