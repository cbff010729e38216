package virtio.ring;

import virtio.api.DeviceType;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A driver with its device, and a guard: what it throws is an error with its name, and its methods
 * are called one at a time.
 */
final class BoundDriver {
    private static final Logger LOG = System.getLogger(BoundDriver.class.getPackageName());

    private final Services.UsableDriver service;
    private final String device;
    private final int deviceType;
    private final VirtioDriver.Bound bound;
    private final ReentrantLock calls = new ReentrantLock();
    private boolean frozen;
    private volatile boolean abandoned;

    private BoundDriver(
            Services.UsableDriver service, LiveDevice device, VirtioDriver.Bound bound) {
        this.service = service;
        this.device = device.name();
        this.deviceType = device.deviceType();
        this.bound = bound;
    }

    /**
     * Has the driver take the device over.
     *
     * @throws VirtioException when it does not; the device is reset and its queues given back
     */
    static BoundDriver probe(Services.UsableDriver service, LiveDevice device)
            throws VirtioException {
        try {
            VirtioDriver.Bound bound = take(service, device);
            BoundDriver driver = new BoundDriver(service, device, bound);
            if (!device.isReady()) {
                driver.remove();
                throw driver.notReady("probe");
            }
            return driver;
        } catch (VirtioException e) {
            device.giveUp(e);
            throw e;
        }
    }

    private static VirtioDriver.Bound take(Services.UsableDriver service, LiveDevice device)
            throws VirtioException {
        VirtioDriver.Bound bound;
        try {
            bound = service.driver().probe(device);
        } catch (RuntimeException | Error e) {
            throw thrown(service, device.name(), "probe", e);
        }
        if (bound == null) {
            throw new VirtioException(
                    "%s: driver %s returned null from probe"
                            .formatted(device.name(), service.bundle()));
        }
        return bound;
    }

    Services.UsableDriver service() {
        return service;
    }

    void configChanged() {
        calls.lock();
        try {
            contain("configChanged", bound::configChanged);
        } finally {
            calls.unlock();
        }
    }

    /**
     * A negotiated device behind another transport that the driver could go on with.
     *
     * @throws VirtioException when it could not; the device is reset
     */
    LiveDevice candidate(OpenTransport transport, LiveDevice.Events events) throws VirtioException {
        int found = transport.deviceType();
        if (found != deviceType) {
            throw new VirtioException(
                    "%s is a %s device, but %s is a %s device"
                            .formatted(
                                    device,
                                    DeviceType.name(deviceType),
                                    transport.address(),
                                    DeviceType.name(found)));
        }
        LiveDevice candidate = LiveDevice.negotiate(device, transport, service, events);
        try {
            compatible(candidate);
            return candidate;
        } catch (VirtioException e) {
            candidate.giveUp(e);
            throw e;
        }
    }

    private void compatible(LiveDevice with) throws VirtioException {
        calls.lock();
        try {
            bound.compatible(with.features(), with.config());
        } catch (RuntimeException | Error e) {
            throw thrown(service, device, "compatible", e);
        } finally {
            calls.unlock();
        }
    }

    void freeze(long drainMillis) {
        calls.lock();
        try {
            frozen = true;
            contain("freeze", () -> bound.freeze(drainMillis));
        } finally {
            calls.unlock();
        }
    }

    /**
     * Has the frozen driver go on.
     *
     * @throws VirtioException when it does not, and is frozen as before; the device is reset and
     *     its queues given back
     */
    void restore(LiveDevice with) throws VirtioException {
        calls.lock();
        try {
            resume(with);
            frozen = false;
            abandoned = false;
        } catch (VirtioException e) {
            with.giveUp(e);
            throw e;
        } finally {
            calls.unlock();
        }
    }

    private void resume(LiveDevice with) throws VirtioException {
        try {
            bound.restore(with);
        } catch (RuntimeException | Error e) {
            throw thrown(service, device, "restore", e);
        }
        if (!with.isReady()) {
            freeze(0);
            throw notReady("restore");
        }
    }

    /**
     * Tells a frozen driver, once, that the wait is over.
     *
     * @return false when it is busy and may be on its way back, so that this has to be seen again
     */
    boolean abandon(VirtioException reason) {
        if (!calls.tryLock()) {
            return false;
        }
        try {
            if (frozen && !abandoned) {
                abandoned = true;
                LOG.log(Level.WARNING, reason.getMessage());
                contain("abandon", () -> bound.abandon(reason));
            }
            return true;
        } finally {
            calls.unlock();
        }
    }

    /** Whether it was told so and has not come back. */
    boolean isAbandoned() {
        return abandoned;
    }

    void remove() {
        calls.lock();
        try {
            frozen = false;
            contain("remove", bound::remove);
        } finally {
            calls.unlock();
        }
    }

    private VirtioException notReady(String method) {
        return new VirtioException(
                "%s: driver %s returned from %s without calling ready"
                        .formatted(device, service.bundle(), method));
    }

    private static VirtioException thrown(
            Services.UsableDriver service, String device, String method, Throwable e) {
        return new VirtioException(
                "%s: driver %s threw from %s: %s".formatted(device, service.bundle(), method, e),
                e);
    }

    private void contain(String method, Runnable call) {
        try {
            call.run();
        } catch (RuntimeException | Error e) {
            LOG.log(Level.ERROR, thrown(service, device, method, e).getMessage(), e);
        }
    }
}
