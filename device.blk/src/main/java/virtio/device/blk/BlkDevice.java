package virtio.device.blk;

import virtio.api.ConfigSpace;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.Registration;
import virtio.api.VirtioDevice;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.block.BlockDevice;
import virtio.api.block.BlockQueue;
import virtio.api.block.BlockRequest;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;

import java.lang.foreign.MemorySegment;
import java.nio.channels.SeekableByteChannel;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Function;

/**
 * A disk: the service its consumers hold, and what the core calls below it.
 *
 * <p>Nothing that consumers call waits for a frozen device but {@link #allocate}: requests are
 * taken in and wait instead.
 */
final class BlkDevice implements BlockDevice, VirtioDriver.Bound {
    private static final int QUEUE_SIZE = 256;
    private static final long ID_TIMEOUT_MILLIS = 5000;
    private static final System.Logger LOG = System.getLogger(BlkDevice.class.getPackageName());

    /** Has no memory of its own. */
    private static final Thread ANOTHER = Thread.ofVirtual().unstarted(() -> {});

    private record Allocation(DeviceMapping mapping, CoherentMemory memory) {
        void free() {
            mapping.free(memory);
        }
    }

    private final String name;
    private final BlkLimits limits;
    private final RequestQueue[] queues;
    private final String serial;
    private final Runnable withdraw;

    /** For channels: who writes part of a block has read it, and nobody may write it meanwhile. */
    final ReentrantReadWriteLock blocks = new ReentrantReadWriteLock();

    private final List<Runnable> capacityListeners = new CopyOnWriteArrayList<>();
    private final Map<Long, Allocation> allocations = new ConcurrentHashMap<>();
    private final AtomicReference<Virtqueue> reported = new AtomicReference<>();
    private volatile long capacityBytes;
    private volatile long swapTimeoutMillis;

    /** Guards what follows; notified on change. */
    private final Object life = new Object();

    /** Null while frozen; written with the lock, read without by who must not wait for it. */
    private volatile VirtioDevice device;

    /** Slots of the request queues; the device may write to them until it is reset. */
    private List<Allocation> slotMemory = List.of();

    private String gone;
    private boolean removed;

    /**
     * Takes the device over.
     *
     * @param announce tells consumers, and returns how to take that back
     */
    BlkDevice(VirtioDevice device, Function<BlockDevice, Runnable> announce)
            throws VirtioException {
        name = device.name();
        swapTimeoutMillis = device.swapTimeoutMillis();
        limits = BlkLimits.read(device.features(), device.config());
        capacityBytes = limits.capacityBytes();
        queues = new RequestQueue[limits.queues()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = new RequestQueue(this);
        }
        try {
            serial = start(device, limits, null);
            withdraw = announce.apply(this);
        } catch (VirtioException | RuntimeException e) {
            freeSlotMemory();
            throw e;
        }
    }

    // BlockDevice

    @Override
    public String name() {
        return name;
    }

    @Override
    public long capacityBytes() {
        return capacityBytes;
    }

    @Override
    public int blockSize() {
        return limits.blockSize();
    }

    @Override
    public boolean readOnly() {
        return limits.readOnly();
    }

    @Override
    public String serial() {
        return serial;
    }

    @Override
    public int queueCount() {
        return queues.length;
    }

    @Override
    public boolean canDiscard() {
        return limits.discard();
    }

    @Override
    public boolean canWriteZeroes() {
        return limits.writeZeroes();
    }

    @Override
    public MemorySegment allocate(long bytes) throws VirtioException {
        if (bytes <= 0) {
            throw new IllegalArgumentException("%d bytes, at least 1 is needed".formatted(bytes));
        }
        synchronized (life) {
            DeviceMapping mapping = awaitDevice().mapping();
            CoherentMemory memory = mapping.alloc(bytes);
            if (memory == null) {
                throw new VirtioException(
                        "%s: no room for %d bytes of memory that the device can see"
                                .formatted(name, bytes));
            }
            allocations.put(memory.segment().address(), new Allocation(mapping, memory));
            return memory.segment().asSlice(0, bytes);
        }
    }

    @Override
    public void free(MemorySegment memory) {
        Allocation allocation = allocations.remove(memory.address());
        if (allocation != null) {
            allocation.free();
            return;
        }
        synchronized (life) {
            if (!removed) {
                throw new IllegalArgumentException(
                        "%s did not allocate the %d bytes at 0x%x"
                                .formatted(name, memory.byteSize(), memory.address()));
            }
        }
    }

    @Override
    public BlockQueue openQueue(int queue, int depth) throws VirtioException {
        if (queue < 0 || queue >= queues.length) {
            throw new IllegalArgumentException(
                    "queue %d, %s has 0 to %d".formatted(queue, name, queues.length - 1));
        }
        if (depth < 1 || depth > BlkQueue.MAX_DEPTH) {
            throw new IllegalArgumentException(
                    "depth of %d, limits are 1 and %d".formatted(depth, BlkQueue.MAX_DEPTH));
        }
        synchronized (life) {
            if (gone != null) {
                throw new VirtioException("%s: %s".formatted(name, gone));
            }
        }
        return queues[queue].open(depth);
    }

    @Override
    public CompletableFuture<Void> read(long offset, MemorySegment into) {
        checkRead(offset, into);
        return add(BlockRequest.IN, 0, offset, into.byteSize(), into);
    }

    @Override
    public CompletableFuture<Void> write(long offset, MemorySegment from) {
        checkWrite(offset, from);
        return add(BlockRequest.OUT, 0, offset, from.byteSize(), from);
    }

    @Override
    public CompletableFuture<Void> flush() {
        return add(BlockRequest.FLUSH, 0, 0, 0, null);
    }

    @Override
    public CompletableFuture<Void> discard(long offset, long length) {
        checkWrite(offset, length);
        return add(BlockRequest.DISCARD, 0, offset, length, null);
    }

    @Override
    public CompletableFuture<Void> writeZeroes(long offset, long length, boolean unmap) {
        checkWrite(offset, length);
        int flags = unmap ? BlockRequest.UNMAP : 0;
        return add(BlockRequest.WRITE_ZEROES, flags, offset, length, null);
    }

    @Override
    public SeekableByteChannel channel() {
        return new BlkChannel(this);
    }

    @Override
    public Registration onCapacityChange(Runnable listener) {
        // An object of its own, so that the same listener can be added twice and taken back once.
        Runnable entry = listener::run;
        capacityListeners.add(entry);
        return () -> capacityListeners.remove(entry);
    }

    @Override
    public String toString() {
        return "%s (%d bytes)".formatted(name, capacityBytes);
    }

    private CompletableFuture<Void> add(
            int type, int flags, long offset, long length, MemorySegment data) {
        CompletableFuture<Void> future = new CompletableFuture<>();
        // A thread stays with its queue, threads spread over the queues.
        int queue = (int) (Thread.currentThread().threadId() % queues.length);
        queues[queue].add(new AsyncRequests.Request(future, type, flags, offset, length, data));
        return future;
    }

    // For the other classes of the driver.

    long swapTimeoutMillis() {
        return swapTimeoutMillis;
    }

    void checkRead(long offset, MemorySegment into) {
        if (into.isReadOnly()) {
            throw new IllegalArgumentException("read into a read-only segment");
        }
        checkShared(into);
        checkRange(offset, into.byteSize());
    }

    void checkWrite(long offset, MemorySegment from) {
        checkShared(from);
        checkWrite(offset, from.byteSize());
    }

    /** Whoever finds the ring in use or a request done copies for others, on any thread. */
    private static void checkShared(MemorySegment data) {
        if (!data.isAccessibleBy(ANOTHER)) {
            throw new IllegalArgumentException(
                    "%d bytes that one thread alone may access, every thread must be allowed to"
                            .formatted(data.byteSize()));
        }
    }

    void checkWrite(long offset, long length) {
        if (limits.readOnly()) {
            throw new IllegalStateException("%s is read-only".formatted(name));
        }
        checkRange(offset, length);
    }

    private void checkRange(long offset, long length) {
        long capacity = capacityBytes;
        int blockMask = limits.blockSize() - 1;
        if (offset < 0 || length <= 0 || offset > capacity - length) {
            throw new IllegalArgumentException(
                    "%d bytes at %d are not on %s, which has %d bytes"
                            .formatted(length, offset, name, capacity));
        }
        if (((offset | length) & blockMask) != 0) {
            throw new IllegalArgumentException(
                    "%d bytes at %d are not whole blocks of %d bytes"
                            .formatted(length, offset, limits.blockSize()));
        }
    }

    /** The queue is of no use any more: has the device reset, once; thread-safe. */
    void broken(Virtqueue queue) {
        if (reported.getAndSet(queue) != queue) {
            // Without the lock on our life: who holds it may wait for the caller's lock.
            VirtioDevice d = device;
            if (d != null) {
                d.needsReset(queue.broken());
            }
        }
    }

    // VirtioDriver.Bound

    @Override
    public void configChanged() {
        VirtioDevice d = device;
        if (d == null) {
            return;
        }
        long bytes;
        try {
            bytes = BlkLimits.read(d.features(), d.config()).capacityBytes();
        } catch (VirtioException e) {
            LOG.log(
                    System.Logger.Level.WARNING,
                    "{0}: new configuration is not taken: {1}",
                    name,
                    e.getMessage());
            return;
        }
        if (bytes != capacityBytes) {
            capacityBytes = bytes;
            for (Runnable listener : capacityListeners) {
                try {
                    listener.run();
                } catch (RuntimeException e) {
                    LOG.log(System.Logger.Level.WARNING, name + ": capacity listener failed", e);
                }
            }
        }
    }

    @Override
    public void compatible(Features features, ConfigSpace config) throws VirtioException {
        same(BlkLimits.read(features, config));
    }

    @Override
    public void freeze(long drainMillis) {
        synchronized (life) {
            device = null;
        }
        for (RequestQueue queue : queues) {
            queue.drain();
        }
        long start = System.nanoTime();
        for (RequestQueue queue : queues) {
            while (!queue.drained()
                    && System.nanoTime() - start < TimeUnit.MILLISECONDS.toNanos(drainMillis)) {
                LockSupport.parkNanos(20_000);
            }
        }
        for (RequestQueue queue : queues) {
            queue.freeze();
        }
    }

    @Override
    public void restore(VirtioDevice device) throws VirtioException {
        BlkLimits now = BlkLimits.read(device.features(), device.config());
        same(now);
        // The device that could write to them is reset.
        freeSlotMemory();
        start(device, now, serial);
    }

    @Override
    public void abandon(VirtioException reason) {
        end(reason.getMessage());
    }

    @Override
    public void remove() {
        synchronized (life) {
            removed = true;
            device = null;
        }
        // Before the service goes: consumers that let go of it then wait for nothing.
        end("the device was removed");
        withdraw.run();
        freeSlotMemory();
        for (Long address : allocations.keySet()) {
            Allocation allocation = allocations.remove(address);
            if (allocation != null) {
                allocation.free();
            }
        }
    }

    private void end(String reason) {
        synchronized (life) {
            gone = reason;
            life.notifyAll();
        }
        for (RequestQueue queue : queues) {
            queue.abandon(reason);
        }
    }

    private void same(BlkLimits other) throws VirtioException {
        try {
            limits.withCapacity(capacityBytes).same(other);
        } catch (VirtioException e) {
            throw new VirtioException(
                    "%s: not the same disk: %s".formatted(name, e.getMessage()), e);
        }
    }

    /**
     * Makes the queues, sets DRIVER_OK and lets requests go; nothing is live when it throws.
     *
     * @param serial what the device must answer; null when anything goes
     * @return what it answered
     */
    private String start(VirtioDevice d, BlkLimits now, String serial) throws VirtioException {
        QueueRequest[] wanted = new QueueRequest[queues.length];
        for (int i = 0; i < queues.length; i++) {
            wanted[i] = new QueueRequest("requestq." + i, QUEUE_SIZE, queues[i]::used);
        }
        Virtqueue[] vqs = d.findQueues(wanted);
        CoherentMemory[] memory = new CoherentMemory[vqs.length];
        Allocation[] taken = new Allocation[vqs.length];
        for (int i = 0; i < vqs.length; i++) {
            Slots.check(vqs[i], now);
            long bytes = (long) vqs[i].size() * Slots.SLOT_BYTES;
            DeviceMapping mapping = vqs[i].mapping();
            memory[i] = mapping.alloc(bytes);
            if (memory[i] == null) {
                throw new VirtioException(
                        "%s: no room for %d bytes of requests".formatted(name, bytes));
            }
            taken[i] = new Allocation(mapping, memory[i]);
            slotMemory = List.of(Arrays.copyOf(taken, i + 1));
        }
        d.ready();
        String id = Slots.readId(vqs[0], memory[0], ID_TIMEOUT_MILLIS);
        if (serial != null && !serial.equals(id)) {
            throw new VirtioException(
                    "%s: not the same disk: serial is '%s', of the new device '%s'"
                            .formatted(name, serial, id));
        }
        synchronized (life) {
            device = d;
            gone = null;
            swapTimeoutMillis = d.swapTimeoutMillis();
            life.notifyAll();
        }
        for (int i = 0; i < queues.length; i++) {
            queues[i].resume(new Slots(vqs[i], memory[i], now));
        }
        return id;
    }

    private void freeSlotMemory() {
        slotMemory.forEach(Allocation::free);
        slotMemory = List.of();
    }

    /** With the lock on our life: the device, waiting for it while it is frozen. */
    private VirtioDevice awaitDevice() throws VirtioException {
        long start = System.nanoTime();
        while (device == null && gone == null) {
            long left =
                    swapTimeoutMillis - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
            if (left <= 0) {
                throw new VirtioException(
                        "%s was frozen for more than %d ms".formatted(name, swapTimeoutMillis));
            }
            try {
                life.wait(left);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new VirtioException("%s: interrupted while frozen".formatted(name), e);
            }
        }
        if (gone != null) {
            throw new VirtioException("%s: %s".formatted(name, gone));
        }
        return device;
    }
}
