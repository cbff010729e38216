package virtio.ring;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;
import virtio.ring.queue.DeviceEnd;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReferenceArray;

/**
 * A backend with its queues, as the device end of a transport sees it.
 *
 * <p>Lives as long as the backend does, through any number of exporters and drivers. Control
 * methods take turns on one lock; {@link #queueNotified} takes none.
 */
final class ExportedBackend implements ExportedDevice {
    /** Offered to transports, which may offer less; Linux and QEMU take no more than this. */
    private static final int MAX_QUEUE_SIZE = 1024;

    private static final Logger LOG = System.getLogger(ExportedBackend.class.getPackageName());

    private final String name;
    private final Backend backend;
    private final int deviceType;
    private final Features offered;
    private final int queueCount;
    private final int configSize;
    private final AtomicReferenceArray<ExportedQueue> queues;
    private final AtomicInteger generation = new AtomicInteger();
    private final Object control = new Object();
    private volatile Export export;
    private Features accepted;

    /**
     * @param name of the backend, as {@code ram:64MiB}
     * @throws VirtioException when the backend contradicts itself or throws
     */
    ExportedBackend(String name, Backend backend) throws VirtioException {
        this.name = name;
        this.backend = backend;
        try {
            deviceType = backend.deviceType();
            queueCount = backend.queueCount();
            configSize = backend.configSize();
            offered =
                    FeatureRules.ofDeviceType(backend.offered())
                            .or(DeviceEnd.FEATURES)
                            .with(Feature.VERSION_1);
            backend.onConfigChange(this::backendChanged);
        } catch (RuntimeException | Error e) {
            throw new VirtioException("backend " + name + " threw " + e, e);
        }
        if (queueCount < 1 || configSize < 0) {
            throw new VirtioException(
                    "backend %s has %d queues and %d bytes of configuration"
                            .formatted(name, queueCount, configSize));
        }
        List<Integer> broken = FeatureRules.broken(deviceType, offered);
        if (!broken.isEmpty()) {
            throw new VirtioException(
                    "backend %s offers %s without what it needs"
                            .formatted(name, Feature.name(deviceType, broken.getFirst())));
        }
        queues = new AtomicReferenceArray<>(queueCount);
    }

    @Override
    public int deviceType() {
        return deviceType;
    }

    @Override
    public Features offered() {
        return offered;
    }

    @Override
    public int queueCount() {
        return queueCount;
    }

    @Override
    public int maxQueueSize() {
        return MAX_QUEUE_SIZE;
    }

    @Override
    public int configSize() {
        return configSize;
    }

    @Override
    public int configGeneration() {
        return generation.get();
    }

    @Override
    public void readConfig(int offset, byte[] into) {
        int length = within(offset, into.length);
        Arrays.fill(into, (byte) 0);
        if (length == 0) {
            return;
        }
        byte[] bytes = length == into.length ? into : new byte[length];
        synchronized (control) {
            contain("readConfig", () -> backend.readConfig(offset, bytes));
        }
        if (bytes != into) {
            System.arraycopy(bytes, 0, into, 0, length);
        }
    }

    @Override
    public void writeConfig(int offset, byte[] from) {
        int length = within(offset, from.length);
        if (length == 0) {
            return;
        }
        byte[] bytes = Arrays.copyOf(from, length);
        synchronized (control) {
            contain("writeConfig", () -> backend.writeConfig(offset, bytes));
        }
    }

    /** Bytes of the range that lie within the configuration. */
    private int within(int offset, int length) {
        return offset < 0 || offset >= configSize ? 0 : Math.min(length, configSize - offset);
    }

    @Override
    public boolean accept(Features features) {
        Features kept = features.andNot(FeatureRules.TRANSPORT.andNot(offered));
        Features excess = kept.andNot(offered);
        if (!excess.isEmpty()
                || !kept.has(Feature.VERSION_1)
                || !FeatureRules.broken(deviceType, kept).isEmpty()) {
            LOG.log(
                    Level.INFO,
                    "{0}: the driver''s features {1} are refused, {2} are offered",
                    name,
                    features,
                    offered);
            return false;
        }
        synchronized (control) {
            try {
                backend.accepted(FeatureRules.ofDeviceType(kept).with(Feature.VERSION_1));
            } catch (RuntimeException | Error e) {
                LOG.log(Level.WARNING, "backend {0} threw from accepted: {1}", name, e.toString());
                return false;
            }
            accepted = kept;
        }
        return true;
    }

    @Override
    public void startQueue(int index, QueueLayout layout, DriverMemory memory, Export to)
            throws VirtioException {
        checkIndex(index);
        synchronized (control) {
            if (accepted == null) {
                throw new VirtioException(
                        "%s: queue %d was started before features were accepted"
                                .formatted(name, index));
            }
            if (queues.get(index) != null) {
                throw new VirtioException("%s: queue %d is started already".formatted(name, index));
            }
            if (layout.size() > DeviceEnd.MAX_SIZE) {
                throw new VirtioException(
                        "%s: queue %d has size %d, the most is %d"
                                .formatted(name, index, layout.size(), DeviceEnd.MAX_SIZE));
            }
            DeviceEnd end = DeviceEnd.start(index, layout, accepted, memory, to);
            ExportedQueue queue = new ExportedQueue(name, backend, end, to);
            queue.started();
            export = to;
            queues.set(index, queue);
        }
        // A queue that goes on from an earlier life has buffers that nobody will notify about.
        contain("schedule", () -> to.schedule(index));
    }

    @Override
    public void queueNotified(int index) {
        if (index < 0 || index >= queueCount) {
            return;
        }
        ExportedQueue queue = queues.get(index);
        if (queue != null) {
            queue.serve();
        }
    }

    @Override
    public int stopQueue(int index) {
        if (index < 0 || index >= queueCount) {
            return 0;
        }
        synchronized (control) {
            ExportedQueue queue = queues.get(index);
            if (queue == null) {
                return 0;
            }
            int nextAvailable = queue.stop();
            queues.set(index, null);
            return nextAvailable;
        }
    }

    @Override
    public void reset() {
        synchronized (control) {
            // All are told before any is waited for.
            for (int index = 0; index < queueCount; index++) {
                ExportedQueue queue = queues.get(index);
                if (queue != null) {
                    queue.quiesce();
                }
            }
            IllegalStateException stuck = null;
            for (int index = 0; index < queueCount; index++) {
                try {
                    stopQueue(index);
                } catch (IllegalStateException e) {
                    stuck = e;
                }
            }
            accepted = null;
            export = null;
            if (stuck != null) {
                throw stuck;
            }
        }
    }

    private void backendChanged() {
        generation.incrementAndGet();
        Export to = export;
        if (to != null) {
            contain("configChanged", to::configChanged);
        }
    }

    private void checkIndex(int index) throws VirtioException {
        if (index < 0 || index >= queueCount) {
            throw new VirtioException(
                    "%s: there is no queue %d, the device has %d queues"
                            .formatted(DeviceType.name(deviceType), index, queueCount));
        }
    }

    private void contain(String method, Runnable call) {
        try {
            call.run();
        } catch (RuntimeException | Error e) {
            LOG.log(Level.WARNING, "{0}: {1} threw {2}", name, method, e.toString());
        }
    }
}
