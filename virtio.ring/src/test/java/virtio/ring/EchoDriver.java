package virtio.ring;

import virtio.api.ConfigSpace;
import virtio.api.DeviceType;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioDevice;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;

/** Drives {@link EchoBackend} and survives what the core does to it. */
final class EchoDriver implements VirtioDriver {
    final AtomicInteger bound = new AtomicInteger();
    final CopyOnWriteArrayList<String> calls = new CopyOnWriteArrayList<>();
    volatile Echo last;
    volatile VirtioException refuseProbe;
    volatile VirtioException refuseCompatible;
    volatile VirtioException refuseRestore;
    volatile VirtioException refuseRestoreOnce;
    volatile RuntimeException throwFromAll;
    volatile boolean forgetReady;
    volatile Runnable onConfigChanged = () -> {};
    volatile Features wanted = Features.of(5, 9, 12);
    volatile OnWanted onWanted = config -> {};

    /** Something to do when asked what is wanted. */
    interface OnWanted {
        void with(ConfigSpace config) throws VirtioException;
    }

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public Features wanted(Features offered, ConfigSpace config) throws VirtioException {
        onWanted.with(config);
        return wanted;
    }

    @Override
    public Bound probe(VirtioDevice device) throws VirtioException {
        calls.add("probe");
        if (refuseProbe != null) {
            throw refuseProbe;
        }
        Echo echo = new Echo(device);
        last = echo;
        bound.incrementAndGet();
        return echo;
    }

    /** The driver with one device. */
    final class Echo implements Bound {
        private record Request(long value, MemorySegment memory, CompletableFuture<Long> answer) {}

        private final Arena arena = Arena.ofShared();
        private final Map<Long, Request> inFlight = new HashMap<>();
        private final ScatterList buffer = new ScatterList(2);
        private final long capacity;
        private long nextToken;
        private Virtqueue queue;
        private VirtioException abandoned;
        volatile VirtioDevice device;
        volatile int configChanges;
        volatile long capacitySeen;

        Echo(VirtioDevice device) throws VirtioException {
            capacity = device.config().read64(0);
            capacitySeen = capacity;
            start(device);
        }

        private void start(VirtioDevice with) throws VirtioException {
            Virtqueue found = with.findQueues(new QueueRequest("echo", 16, this::used))[0];
            if (!forgetReady) {
                with.ready();
            }
            synchronized (this) {
                device = with;
                queue = found;
            }
        }

        /** The answer to a number, whenever that comes. */
        synchronized CompletableFuture<Long> ask(long value) {
            CompletableFuture<Long> answer = new CompletableFuture<>();
            if (abandoned != null) {
                answer.completeExceptionally(abandoned);
                return answer;
            }
            MemorySegment memory = arena.allocate(16);
            Request request = new Request(value, memory, answer);
            inFlight.put(nextToken, request);
            submit(nextToken++, request);
            return answer;
        }

        private void submit(long token, Request request) {
            if (queue != null) {
                request.memory().set(ValueLayout.JAVA_LONG, 0, request.value());
                buffer.clear()
                        .out(request.memory().asSlice(0, 8))
                        .in(request.memory().asSlice(8, 8));
                queue.add(buffer, token);
                queue.kick();
            }
        }

        private synchronized void used(Virtqueue from) {
            if (from != queue) {
                return;
            }
            do {
                for (long token = from.get(); token != Virtqueue.NONE; token = from.get()) {
                    Request request = inFlight.remove(token);
                    request.answer().complete(request.memory().get(ValueLayout.JAVA_LONG, 8));
                    notifyAll();
                }
            } while (!from.enableCallback());
        }

        /** Takes answers without having been interrupted. */
        synchronized void poll() {
            if (queue != null) {
                used(queue);
            }
        }

        @Override
        public void configChanged() {
            calls.add("configChanged");
            onConfigChanged.run();
            fail();
            try {
                capacitySeen = device.config().read64(0);
            } catch (VirtioException e) {
                capacitySeen = -1;
            }
            configChanges++;
        }

        @Override
        public void compatible(Features features, ConfigSpace config) throws VirtioException {
            calls.add("compatible");
            fail();
            if (refuseCompatible != null) {
                throw refuseCompatible;
            }
            if (config.read64(0) != capacity) {
                throw new VirtioException(
                        "capacity is %d, was %d".formatted(config.read64(0), capacity));
            }
        }

        @Override
        public synchronized void freeze(long drainMillis) {
            calls.add("freeze " + drainMillis);
            long end = System.nanoTime() + drainMillis * 1_000_000;
            try {
                while (!inFlight.isEmpty() && System.nanoTime() < end) {
                    wait(Math.max(1, (end - System.nanoTime()) / 1_000_000));
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            queue = null;
            fail();
        }

        @Override
        public void restore(VirtioDevice with) throws VirtioException {
            calls.add("restore");
            fail();
            if (refuseRestore != null) {
                throw refuseRestore;
            }
            VirtioException once = refuseRestoreOnce;
            if (once != null) {
                refuseRestoreOnce = null;
                throw once;
            }
            start(with);
            synchronized (this) {
                abandoned = null;
                inFlight.forEach(this::submit);
            }
        }

        @Override
        public synchronized void abandon(VirtioException reason) {
            calls.add("abandon");
            abandoned = reason;
            inFlight.values().forEach(r -> r.answer().completeExceptionally(reason));
            inFlight.clear();
            fail();
        }

        @Override
        public synchronized void remove() {
            calls.add("remove");
            bound.decrementAndGet();
            queue = null;
            abandon(new VirtioException("removed"));
            arena.close();
        }

        private void fail() {
            if (throwFromAll != null) {
                throw throwFromAll;
            }
        }
    }
}
