package virtio.ring;

import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.SwapResult;

import java.util.concurrent.Callable;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;

/**
 * A declared attachment, as the bus sees it: everything it asks for is done by {@link DeviceSteps},
 * one step after the other, and what it shows is a snapshot.
 *
 * <p>Thread-safe.
 */
final class AttachedDevice {
    /** Who keeps the list of attachments. */
    interface Owner {
        /** The first free name for a device type, given to the device by {@link #name}. */
        String claimName(AttachedDevice device, int deviceType);

        /** It is let go for good. */
        void letGo(AttachedDevice device);
    }

    private final Supplier<Settings> settings;
    private final Owner owner;
    private final Lifecycle lifecycle;
    private final DeviceSteps steps;
    private final AtomicBoolean advancing = new AtomicBoolean();
    private volatile String name;

    /**
     * @param name null to have one claimed when the device type is known
     */
    AttachedDevice(
            String address,
            String name,
            Services services,
            Supplier<Settings> settings,
            Owner owner) {
        this.name = name;
        this.settings = settings;
        this.owner = owner;
        lifecycle = new Lifecycle(name != null ? name : address);
        steps = new DeviceSteps(this, address, services, settings, lifecycle);
    }

    /** The name; the address while none is claimed. */
    String name() {
        String known = name;
        return known != null ? known : address();
    }

    /** Names it; by the owner, under the lock that keeps names apart. */
    void name(String claimed) {
        name = claimed;
    }

    /** The name, claimed now if there is none yet; for steps. */
    String name(int deviceType) {
        if (name == null) {
            lifecycle.rename(owner.claimName(this, deviceType));
        }
        return name;
    }

    /** Where it is attached, or declared to be. */
    String address() {
        return steps.address();
    }

    Lifecycle lifecycle() {
        return lifecycle;
    }

    DeviceSnapshot snapshot() {
        return steps.snapshot();
    }

    /** Tells the owner that nothing is left; for steps. */
    void gone() {
        owner.letGo(this);
    }

    /** Brings the device up at once, or fails and lets it go. */
    DeviceSnapshot attach() throws VirtioException {
        String what = "attach " + address();
        Future<DeviceSnapshot> step = lifecycle.submit(what, steps::attach);
        try {
            return Lifecycle.await(what, step, settings.get().operationMillis());
        } catch (VirtioException e) {
            step.cancel(true);
            close();
            throw e;
        }
    }

    /** Sees what can be done now: services have come, or the attachment is new. */
    void advance() {
        if (advancing.compareAndSet(false, true)) {
            lifecycle.post(
                    () -> {
                        advancing.set(false);
                        steps.advance();
                    });
        }
    }

    /** Lets go of a service that left; null when it is not in use, else the step to wait for. */
    Future<?> depart(Object service) throws VirtioException {
        return steps.uses(service)
                ? lifecycle.submitOrEnd(name() + ": letting go of a service", step(steps::leave))
                : null;
    }

    /** Drains, resets, gives everything back, for good; the step to wait for. */
    Future<?> detach() throws VirtioException {
        Future<?> step = lifecycle.submit(name() + ": detach", step(steps::letGo));
        lifecycle.close();
        return step;
    }

    /** As {@link #detach}, with nobody waiting. */
    void close() {
        lifecycle.post(steps::letGo);
        lifecycle.close();
    }

    /** Moves the device to another address, or the same one anew. */
    SwapResult swap(String to) throws VirtioException {
        String what = "swap " + name() + " to " + to;
        Callable<SwapResult> step = () -> steps.swap(to);
        return Lifecycle.await(
                what, lifecycle.submit(what, step), settings.get().operationMillis());
    }

    private static Callable<Void> step(Runnable step) {
        return () -> {
            step.run();
            return null;
        };
    }
}
