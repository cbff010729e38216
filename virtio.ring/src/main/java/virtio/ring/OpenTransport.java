package virtio.ring;

import virtio.api.DeviceStatus;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.DeviceMapping;
import virtio.api.map.MapToken;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A transport that was opened, with a guard around it: control calls come one at a time, whatever
 * it throws is an error with its address, and it is bound to the map operations of its bundle.
 *
 * <p>Thread-safe.
 */
final class OpenTransport implements Transport {
    /** How long a control call may wait for another one. */
    static final long CONTROL_MILLIS = 10_000;

    /** How long the device may take to read as reset after the transport said that it is. */
    static final long RESET_MILLIS = 1_000;

    private static final Logger LOG = System.getLogger(OpenTransport.class.getPackageName());

    private final String address;
    private final Services.UsableTransport service;
    private final Transport transport;
    private final ReentrantLock control = new ReentrantLock();
    private volatile Listener listener;
    private volatile VirtioException gone;
    private volatile boolean closed;
    private volatile int lastStatus;
    private volatile int written;

    private OpenTransport(String address, Services.UsableTransport service, Transport transport) {
        this.address = address;
        this.service = service;
        this.transport = transport;
    }

    /**
     * Opens a device.
     *
     * @param address whole, as {@code mmio:emu0}
     */
    static OpenTransport open(String address, Services.UsableTransport service)
            throws VirtioException {
        String own = address.substring(address.indexOf(':') + 1);
        Transport transport;
        try {
            transport = service.provider().open(own);
        } catch (RuntimeException | Error e) {
            throw new VirtioException(address + ": the transport's open threw " + e, e);
        }
        if (transport == null) {
            throw new VirtioException(address + ": the transport's open returned null");
        }
        OpenTransport open = new OpenTransport(address, service, transport);
        try {
            open.control("listen", () -> transport.listen(open.new Relay()));
        } catch (VirtioException e) {
            open.close();
            throw e;
        }
        return open;
    }

    String address() {
        return address;
    }

    Services.UsableTransport service() {
        return service;
    }

    /** The status as last written or read. */
    int lastStatus() {
        return lastStatus;
    }

    /** The pair that the queue, or the {@link #DEVICE}, is bound to. */
    DeviceMapping mapping(int queue) throws VirtioException {
        MapToken token = ask("mapToken", () -> transport.mapToken(queue));
        if (token == null) {
            throw new VirtioException(
                    "%s: the transport gives no map token for queue %d".formatted(address, queue));
        }
        return new DeviceMapping(service.ops(), token);
    }

    /** Resets the device and sees that it is (virtio 2.4.2: status reads as 0). */
    void reset() throws VirtioException {
        status(0);
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(RESET_MILLIS);
        int status = status();
        while (status != 0) {
            if (System.nanoTime() - end > 0) {
                throw new VirtioException(
                        "%s: device status reads %s, not 0, %d ms after the reset"
                                .formatted(address, DeviceStatus.name(status), RESET_MILLIS));
            }
            LockSupport.parkNanos(100_000);
            status = status();
        }
    }

    /** Adds bits to the status; none is ever cleared but by a reset (virtio 2.1.1). */
    void addStatus(int bits) throws VirtioException {
        status(written | bits);
    }

    @Override
    public int deviceType() throws VirtioException {
        return ask("deviceType", transport::deviceType);
    }

    @Override
    public Features offered() throws VirtioException {
        Features offered = ask("offered", transport::offered);
        if (offered == null) {
            throw new VirtioException(address + ": the transport offers null for features");
        }
        return offered;
    }

    @Override
    public void accept(Features features) throws VirtioException {
        control("accept", () -> transport.accept(features));
    }

    @Override
    public int status() throws VirtioException {
        lastStatus = ask("status", transport::status);
        return lastStatus;
    }

    @Override
    public void status(int value) throws VirtioException {
        control("status", () -> transport.status(value));
        lastStatus = value;
        written = value;
    }

    @Override
    public int configGeneration() throws VirtioException {
        return ask("configGeneration", transport::configGeneration);
    }

    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        control("readConfig", () -> transport.readConfig(offset, into));
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        control("writeConfig", () -> transport.writeConfig(offset, from));
    }

    @Override
    public int maxQueueSize(int queue) throws VirtioException {
        return ask("maxQueueSize", () -> transport.maxQueueSize(queue));
    }

    @Override
    public MapToken mapToken(int queue) {
        return transport.mapToken(queue);
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        control("startQueue", () -> transport.startQueue(queue, layout));
    }

    @Override
    public boolean stopQueue(int queue) throws VirtioException {
        return ask("stopQueue", () -> transport.stopQueue(queue));
    }

    @Override
    public void notifyQueue(int queue, int data) {
        try {
            transport.notifyQueue(queue, data);
        } catch (RuntimeException | Error e) {
            Listener to = listener;
            if (to != null) {
                to.gone(new VirtioException(address + ": notifyQueue threw " + e, e));
            }
        }
    }

    /** Where to report to from now on; null for nowhere. */
    @Override
    public void listen(Listener to) {
        listener = to;
        VirtioException reason = gone;
        if (to != null && reason != null) {
            to.gone(reason);
        }
    }

    @Override
    public void close() {
        if (closed) {
            return;
        }
        closed = true;
        listener = null;
        try {
            transport.close();
        } catch (RuntimeException | Error e) {
            LOG.log(Level.WARNING, "{0}: the transport''s close threw {1}", address, e.toString());
        }
    }

    private <T> T ask(String what, Ask<T> call) throws VirtioException {
        try {
            if (!control.tryLock(CONTROL_MILLIS, TimeUnit.MILLISECONDS)) {
                throw new VirtioException(
                        "%s: %s waited %d ms for another call to end"
                                .formatted(address, what, CONTROL_MILLIS));
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new VirtioException("%s: %s was interrupted".formatted(address, what), e);
        }
        try {
            if (closed) {
                throw new VirtioException("%s: %s on a closed transport".formatted(address, what));
            }
            return call.run();
        } catch (RuntimeException | Error e) {
            throw new VirtioException(
                    "%s: the transport's %s threw %s".formatted(address, what, e), e);
        } finally {
            control.unlock();
        }
    }

    private void control(String what, Control call) throws VirtioException {
        ask(
                what,
                () -> {
                    call.run();
                    return null;
                });
    }

    @FunctionalInterface
    private interface Ask<T> {
        T run() throws VirtioException;
    }

    @FunctionalInterface
    private interface Control {
        void run() throws VirtioException;
    }

    /** The transport is told once where to report to; a device is initialised more than once. */
    private final class Relay implements Listener {
        @Override
        public void queueUsed(int queue) {
            Listener to = listener;
            if (to != null) {
                to.queueUsed(queue);
            }
        }

        @Override
        public void configChanged() {
            Listener to = listener;
            if (to != null) {
                to.configChanged();
            }
        }

        @Override
        public void gone(VirtioException reason) {
            gone = reason;
            Listener to = listener;
            if (to != null) {
                to.gone(reason);
            }
        }
    }
}
