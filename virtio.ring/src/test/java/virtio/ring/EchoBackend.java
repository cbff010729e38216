package virtio.ring;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/** A device that answers every 64-bit number with its complement; its capacity is its config. */
final class EchoBackend implements Backend {
    /** Opens them, by capacity. */
    static final class Provider implements BackendProvider {
        final AtomicInteger open = new AtomicInteger();
        volatile EchoBackend last;

        @Override
        public String name() {
            return "echo";
        }

        @Override
        public Backend open(String spec) throws VirtioException {
            try {
                last = new EchoBackend(Long.parseLong(spec), open);
            } catch (NumberFormatException e) {
                throw new VirtioException("\"" + spec + "\" is no capacity", e);
            }
            open.incrementAndGet();
            return last;
        }
    }

    private final AtomicLong capacity;
    private final AtomicInteger open;
    private final Set<Long> seen = new HashSet<>();
    private volatile Runnable listener;
    volatile Features offered = Features.of(Feature.VERSION_1, 5, 9);
    volatile Features accepted;
    volatile boolean mute;
    volatile RuntimeException failure;
    volatile int queuesLive;

    /** Somebody is in {@link #process} and does not get out of it. */
    volatile boolean inside;

    volatile Runnable onServed = () -> {};
    private volatile CountDownLatch held = new CountDownLatch(0);

    EchoBackend(long capacity, AtomicInteger open) {
        this.capacity = new AtomicLong(capacity);
        this.open = open;
    }

    void resize(long newCapacity) {
        capacity.set(newCapacity);
        listener.run();
    }

    /** Lets nobody out of {@link #process} before {@link #letGo}. */
    void hold() {
        held = new CountDownLatch(1);
    }

    void letGo() {
        held.countDown();
    }

    synchronized Set<Long> seen() {
        return Set.copyOf(seen);
    }

    private synchronized void see(long value) {
        seen.add(value);
    }

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public Features offered() {
        return offered;
    }

    @Override
    public int queueCount() {
        return 1;
    }

    @Override
    public int configSize() {
        return 8;
    }

    @Override
    public void readConfig(int offset, byte[] into) {
        byte[] all =
                ByteBuffer.allocate(8)
                        .order(ByteOrder.LITTLE_ENDIAN)
                        .putLong(capacity.get())
                        .array();
        System.arraycopy(all, offset, into, 0, into.length);
    }

    @Override
    public void writeConfig(int offset, byte[] from) {}

    @Override
    public void onConfigChange(Runnable to) {
        listener = to;
    }

    @Override
    public void accepted(Features features) {
        accepted = features;
    }

    @Override
    public void queueStarted(DeviceQueue queue) {
        queuesLive++;
    }

    @Override
    public void queueStopped(DeviceQueue queue) {
        queuesLive--;
    }

    @Override
    public void process(DeviceQueue queue) {
        CountDownLatch held = this.held;
        // One that came before hold() goes on, and is nothing to wait for.
        inside = held.getCount() > 0;
        try {
            held.await();
            serve(queue);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        } finally {
            inside = false;
        }
    }

    private void serve(DeviceQueue queue) {
        fail();
        if (mute) {
            return;
        }
        Chain chain = queue.newChain();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment answer = arena.allocate(8);
            while (queue.next(chain)) {
                fail(); // May have been set since this was entered, as may mute.
                if (mute) {
                    return;
                }
                long value = chain.read64(0);
                see(value);
                answer.set(ValueLayout.JAVA_LONG, 0, ~value);
                chain.write(0, answer, 0, 8);
                queue.complete(chain, 8);
                onServed.run();
            }
        }
    }

    private void fail() {
        RuntimeException thrown = failure;
        if (thrown != null) {
            throw thrown;
        }
    }

    @Override
    public void close() {
        open.decrementAndGet();
    }
}
