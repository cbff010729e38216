package virtio.ring;

import virtio.api.DeviceStatus;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.IdentityMapOps;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.transport.Candidate;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.Exporter;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.api.transport.TransportProvider;

import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Both ends of a transport in one object, in this process, with counters of what is not given back
 * and switches for every way to misbehave.
 */
final class LoopTransport implements TransportProvider, Exporter {
    final CountingMapOps ops = new CountingMapOps();
    final AtomicInteger open = new AtomicInteger();
    final AtomicInteger exported = new AtomicInteger();
    final Map<String, Window> windows = new ConcurrentHashMap<>();
    private final String name;

    /** The control method that throws, by name; or null. */
    volatile String throwing;

    /** The control method that does not return before the latch is open, by name; or null. */
    volatile String hanging;

    final CountDownLatch hung = new CountDownLatch(1);
    final CountDownLatch release = new CountDownLatch(1);

    /** Bits of the status that never show when it is read. */
    volatile int statusHidden;

    /** Bits of the status that always show when it is read. */
    volatile int statusStuck;

    /** Whether each read of the generation gives another one. */
    volatile boolean restless;

    /** What the driver end was asked to do that changes the device, in order. */
    final List<String> journal = new CopyOnWriteArrayList<>();

    volatile Features hiddenFeatures = Features.NONE;
    volatile Features extraFeatures = Features.NONE;

    /** Why nothing can be exported, or null. */
    volatile String unavailable;

    LoopTransport(String name) {
        this.name = name;
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public String unavailable() {
        misbehave("unavailable");
        return unavailable;
    }

    @Override
    public List<Candidate> discover() {
        misbehave("discover");
        return windows.keySet().stream()
                .map(address -> new Candidate(name + ":" + address, "a loop", null))
                .toList();
    }

    @Override
    public Transport open(String address) throws VirtioException {
        misbehave("open");
        Window window = windows.get(address);
        if (window == null) {
            throw new VirtioException(name + ":" + address + ": nothing is exported there");
        }
        synchronized (window) {
            if (window.driver != null) {
                throw new VirtioException(name + ":" + address + ": is driven already");
            }
            window.driver = new DriverSide(window);
        }
        open.incrementAndGet();
        return window.driver;
    }

    @Override
    public Export export(String address, ExportedDevice device) throws VirtioException {
        Window window = new Window(address, device);
        if (windows.putIfAbsent(address, window) != null) {
            window.close();
            throw new VirtioException(name + ":" + address + ": is taken");
        }
        exported.incrementAndGet();
        return window;
    }

    private void misbehave(String method) {
        if (method.equals(throwing)) {
            throw new IllegalStateException("rogue " + method);
        }
        if (method.equals(hanging)) {
            hung.countDown();
            boolean interrupted = false;
            while (true) {
                try {
                    release.await();
                    break;
                } catch (InterruptedException e) {
                    interrupted = true; // Stubborn on purpose.
                }
            }
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    /** The device end: what both sides share. */
    final class Window implements Export {
        private final String address;
        final ExportedDevice device;
        private final ExecutorService thread =
                Executors.newSingleThreadExecutor(
                        step -> {
                            Thread made = new Thread(step, "loop-queue");
                            made.setDaemon(true);
                            return made;
                        });
        volatile DriverSide driver;
        volatile String broken;

        Window(String address, ExportedDevice device) {
            this.address = address;
            this.device = device;
        }

        void kick(int queue) {
            if (!thread.isShutdown()) {
                thread.execute(() -> device.queueNotified(queue));
            }
        }

        /** Returns when the device has looked at its queues and asked to be notified. */
        void settle() throws Exception {
            thread.submit(() -> {}).get();
        }

        @Override
        public String driver() {
            return driver != null ? "driven by a test" : null;
        }

        @Override
        public void interrupt(int queue) {
            DriverSide to = driver;
            if (to != null && to.listener != null) {
                to.listener.queueUsed(queue);
            }
        }

        @Override
        public void configChanged() {
            DriverSide to = driver;
            if (to != null && to.listener != null) {
                to.listener.configChanged();
            }
        }

        @Override
        public void schedule(int queue) {
            kick(queue);
        }

        @Override
        public void queueBroken(int queue, String reason) {
            broken = reason;
            DriverSide to = driver;
            if (to != null) {
                synchronized (to) {
                    to.status |= DeviceStatus.DEVICE_NEEDS_RESET;
                }
                to.listener.configChanged();
            }
        }

        @Override
        public void close() {
            misbehave("export's close");
            if (windows.remove(address, this)) {
                exported.decrementAndGet();
            }
            thread.shutdown();
            device.reset();
            DriverSide to = driver;
            if (to != null) {
                to.vanish();
            }
        }
    }

    /** The driver end. */
    final class DriverSide implements Transport {
        private final Window window;
        private final IdentityMapOps.Token token = IdentityMapOps.token(1 << 20, 1 << 20);
        private volatile Listener listener;
        private volatile int status;
        private volatile boolean gone;
        private volatile boolean closed;
        private int generation;

        DriverSide(Window window) {
            this.window = window;
        }

        /** As an unplugged device. */
        void vanish() {
            gone = true;
            Listener to = listener;
            if (to != null) {
                to.gone(new VirtioException(name + ":" + window.address + " vanished"));
            }
        }

        private void check(String method) throws VirtioException {
            misbehave(method);
            if (gone || closed) {
                throw new VirtioException(
                        "%s:%s: %s of a device that is gone"
                                .formatted(name, window.address, method));
            }
        }

        @Override
        public int deviceType() throws VirtioException {
            check("deviceType");
            return window.device.deviceType();
        }

        @Override
        public Features offered() throws VirtioException {
            check("offered");
            return window.device.offered().andNot(hiddenFeatures).or(extraFeatures);
        }

        @Override
        public void accept(Features features) throws VirtioException {
            check("accept");
            journal.add("accept");
            refused = !window.device.accept(features.andNot(extraFeatures));
        }

        private boolean refused;

        @Override
        public int status() throws VirtioException {
            check("status");
            return status & ~statusHidden | statusStuck;
        }

        @Override
        public void status(int value) throws VirtioException {
            check("status");
            journal.add(DeviceStatus.name(value));
            synchronized (this) {
                if (value == 0) {
                    window.device.reset();
                    refused = false;
                    status = 0;
                    return;
                }
                int kept = status & DeviceStatus.DEVICE_NEEDS_RESET;
                status = kept | (refused ? value & ~DeviceStatus.FEATURES_OK : value);
            }
        }

        @Override
        public int configGeneration() throws VirtioException {
            check("configGeneration");
            return restless ? generation++ : window.device.configGeneration();
        }

        @Override
        public void readConfig(int offset, byte[] into) throws VirtioException {
            check("readConfig");
            if (offset + into.length > window.device.configSize()) {
                throw new VirtioException(
                        "%d bytes at offset %d, the configuration has %d"
                                .formatted(into.length, offset, window.device.configSize()));
            }
            window.device.readConfig(offset, into);
        }

        @Override
        public void writeConfig(int offset, byte[] from) throws VirtioException {
            check("writeConfig");
            journal.add("writeConfig");
            window.device.writeConfig(offset, from);
        }

        @Override
        public int maxQueueSize(int queue) throws VirtioException {
            check("maxQueueSize");
            return queue < window.device.queueCount() ? 64 : 0;
        }

        @Override
        public MapToken mapToken(int queue) {
            misbehave("mapToken");
            return token;
        }

        @Override
        public void startQueue(int queue, QueueLayout layout) throws VirtioException {
            check("startQueue");
            journal.add("startQueue");
            window.device.startQueue(queue, layout, new Identity(), window);
        }

        @Override
        public boolean stopQueue(int queue) throws VirtioException {
            check("stopQueue");
            window.device.stopQueue(queue);
            return true;
        }

        @Override
        public void notifyQueue(int queue, int data) {
            misbehave("notifyQueue");
            journal.add("notify");
            if (!gone) {
                window.kick(queue);
            }
        }

        @Override
        public void listen(Listener to) {
            misbehave("listen");
            listener = to;
        }

        @Override
        public void close() {
            if (closed) {
                return;
            }
            closed = true;
            journal.add("close");
            window.device.reset(); // What a device does that loses its driver.
            synchronized (window) {
                window.driver = null;
            }
            open.decrementAndGet();
            misbehave("close");
        }
    }

    private static final class Identity implements DriverMemory {
        @Override
        public long translate(long mapHandle, long length, boolean write) {
            return mapHandle;
        }

        @Override
        public long reach(long mapHandle, boolean write) {
            return Long.MAX_VALUE;
        }
    }

    /** The identity, counted. */
    final class CountingMapOps implements MapOps {
        private final IdentityMapOps identity = new IdentityMapOps();
        final AtomicInteger live = new AtomicInteger();

        @Override
        public long mapPage(
                MapToken token,
                MemorySegment page,
                long offset,
                long size,
                Direction direction,
                long attrs) {
            live.incrementAndGet();
            return identity.mapPage(token, page, offset, size, direction, attrs);
        }

        @Override
        public void unmapPage(
                MapToken token, long mapHandle, long size, Direction direction, long attrs) {
            live.decrementAndGet();
            journal.add("unmap");
            identity.unmapPage(token, mapHandle, size, direction, attrs);
        }

        @Override
        public void syncSingleForCpu(
                MapToken token, long mapHandle, long size, Direction direction) {
            identity.syncSingleForCpu(token, mapHandle, size, direction);
        }

        @Override
        public void syncSingleForDevice(
                MapToken token, long mapHandle, long size, Direction direction) {
            identity.syncSingleForDevice(token, mapHandle, size, direction);
        }

        @Override
        public CoherentMemory alloc(MapToken token, long size) {
            live.incrementAndGet();
            return identity.alloc(token, size);
        }

        @Override
        public void free(MapToken token, CoherentMemory memory) {
            live.decrementAndGet();
            identity.free(token, memory);
        }

        @Override
        public boolean needSync(MapToken token, long mapHandle) {
            return identity.needSync(token, mapHandle);
        }

        @Override
        public boolean mappingError(MapToken token, long mapHandle) {
            return identity.mappingError(token, mapHandle);
        }

        @Override
        public long maxMappingSize(MapToken token) {
            return identity.maxMappingSize(token);
        }
    }
}
