package virtio.ring.queue;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.MapOps;
import virtio.api.status.QueueSnapshot;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;

/**
 * The driver's end of a virtqueue, whatever its layout: the private state of what the device holds.
 *
 * <p>Nothing that the device can write is read back as truth: descriptor chains, handles and
 * lengths are kept here by descriptor id, and what the device reports is checked against them.
 *
 * <p>Threading: as {@link Virtqueue}; in addition {@link #interrupted}, {@link #fail} and {@link
 * #snapshot} may be called from any thread. {@link #close} needs a quiesced owner.
 */
public abstract class DriverEnd extends Shadow implements Virtqueue {
    /** What this package can drive; the core accepts nothing else of the ring's features. */
    public static final Features FEATURES =
            Features.of(
                    Feature.INDIRECT_DESC,
                    Feature.EVENT_IDX,
                    Feature.VERSION_1,
                    Feature.RING_PACKED,
                    Feature.IN_ORDER,
                    Feature.NOTIFICATION_DATA,
                    Feature.RING_RESET);

    /** Hears of the first broken promise of a device. */
    @FunctionalInterface
    public interface BrokenListener {
        /** The queue does not work any more; on the thread that found out, must not block. */
        void broken(DriverEnd queue, String reason);
    }

    /** What {@link #create} is given. */
    record Setup(
            int index,
            QueueRequest request,
            int size,
            Features features,
            DeviceMapping mapping,
            Transport transport,
            BrokenListener listener) {}

    private static final VarHandle BROKEN;
    private static final VarHandle CALLBACKS;
    private static final VarHandle INTERRUPTS;

    static {
        try {
            MethodHandles.Lookup lookup = MethodHandles.lookup();
            BROKEN = lookup.findVarHandle(DriverEnd.class, "broken", String.class);
            CALLBACKS = lookup.findVarHandle(DriverEnd.class, "callbacks", boolean.class);
            INTERRUPTS = lookup.findVarHandle(DriverEnd.class, "interrupts", long.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    final int index;
    final long maxMappingSize;
    final boolean eventIdx;

    int usedLength;
    long notifications;

    /** Plain reads by the owner; written once by whoever breaks the queue. */
    String broken;

    /** Whether callbacks are wanted; others may switch it off. */
    boolean callbacks;

    private long interrupts;
    private int detachFrom;
    private boolean closed;
    private CoherentMemory ring;

    private final QueueRequest request;
    private final DeviceMapping mapping;
    private final Features features;
    private final Transport transport;
    private final BrokenListener listener;

    DriverEnd(Setup setup) throws VirtioException {
        super(
                setup.mapping,
                setup.features.has(Feature.INDIRECT_DESC),
                setup.features.has(Feature.IN_ORDER));
        int size = setup.size;
        index = setup.index;
        request = setup.request;
        features = setup.features;
        mapping = setup.mapping;
        transport = setup.transport;
        listener = setup.listener;
        maxMappingSize = mapping.maxMappingSize();
        eventIdx = features.has(Feature.EVENT_IDX);
        checkSize(size);
        CoherentMemory memory = mapping.alloc(ringBytes(size));
        if (memory == null) {
            throw noMemory(size);
        }
        begin(memory, size);
    }

    /**
     * Makes a queue, in memory of the mapping; the device is not told yet.
     *
     * @param size number of descriptors
     * @param features what was negotiated
     * @param mapping the map operations with the queue's own token
     * @throws IllegalArgumentException when the layout cannot have that size
     * @throws VirtioException when there is no memory
     */
    public static DriverEnd create(
            int index,
            QueueRequest request,
            int size,
            Features features,
            DeviceMapping mapping,
            Transport transport,
            BrokenListener listener)
            throws VirtioException {
        Setup setup = new Setup(index, request, size, features, mapping, transport, listener);
        boolean inOrder = features.has(Feature.IN_ORDER);
        if (features.has(Feature.RING_PACKED)) {
            return inOrder ? new PackedInOrderDriverEnd(setup) : new PackedDriverEnd(setup);
        }
        return inOrder ? new SplitInOrderDriverEnd(setup) : new SplitDriverEnd(setup);
    }

    /** Where the queue lies, for {@link Transport#startQueue}. */
    public abstract QueueLayout layout();

    /** Bytes of coherent memory for a ring of that size. */
    abstract long ringBytes(int size);

    /** Throws what {@link #create} says about sizes. */
    abstract void checkSize(int size);

    /** Starts from zeroed memory: indices, event suppression. */
    abstract void initialise(CoherentMemory memory);

    /**
     * Whether the device used something that was not got yet; from any thread, by checked reads.
     */
    abstract boolean moreUsed(MemorySegment ring);

    /** What {@link Transport#notifyQueue} carries with NOTIFICATION_DATA, less the queue number. */
    abstract int notificationOffset();

    abstract QueueSnapshot snapshot(long interrupts, String broken);

    /** Keeps {@link #snapshot} counting over a reset. */
    abstract void carryCounts();

    @Override
    public final int index() {
        return index;
    }

    @Override
    public final String name() {
        return request.name();
    }

    @Override
    public final int size() {
        return size;
    }

    @Override
    public final int free() {
        return free;
    }

    @Override
    public final int maxElements() {
        return indirect != null ? Descriptor.MAX_INDIRECT : size;
    }

    @Override
    public final DeviceMapping mapping() {
        return mapping;
    }

    @Override
    public final int usedLength() {
        return usedLength;
    }

    @Override
    public final String broken() {
        return (String) BROKEN.getVolatile(this);
    }

    @Override
    public final boolean notifyDevice() {
        if (broken != null) {
            return false;
        }
        notifications++;
        boolean withData = features.has(Feature.NOTIFICATION_DATA);
        transport.notifyQueue(index, withData ? index | notificationOffset() << 16 : index);
        return true;
    }

    @Override
    public final void disableCallback() {
        // The ring is written by the owner only, in its next get or kick: this may be another
        // thread, and the ring may be on its way out.
        CALLBACKS.setOpaque(this, false);
    }

    @Override
    public final boolean enableCallback() {
        return !poll(enableCallbackPrepare());
    }

    /**
     * The device sent a used buffer notification; {@code vring_interrupt}. Runs the callback unless
     * nothing was used, callbacks are disabled or the queue is broken. From any thread.
     */
    public final void interrupted() {
        CoherentMemory memory = ring;
        if (broken() != null || memory == null) {
            return;
        }
        // Pairs with the fence of enabling: either the owner sees the used buffer, or this sees
        // that callbacks are enabled.
        VarHandle.fullFence();
        try {
            if (!moreUsed(memory.segment())) {
                return;
            }
        } catch (IllegalStateException | IndexOutOfBoundsException gone) {
            // The ring went away, or is being resized, under a late interrupt.
            return;
        }
        INTERRUPTS.getAndAdd(this, 1L);
        QueueRequest.Callback callback = request.callback();
        if (callback != null && (boolean) CALLBACKS.getVolatile(this)) {
            callback.used(this);
        }
    }

    /**
     * Breaks the queue because the device is gone or was reset, without telling the {@link
     * BrokenListener}; nothing happens when it is broken already. From any thread.
     */
    public final void fail(String reason) {
        BROKEN.compareAndSet(this, null, reason);
    }

    /** The queue now; from any thread. */
    public final QueueSnapshot snapshot() {
        return snapshot((long) INTERRUPTS.getOpaque(this), broken());
    }

    @Override
    public final long detachUnused() {
        if (closed) {
            return NONE;
        }
        for (; detachFrom < size; detachFrom++) {
            long state = word(shadow, detachFrom, STATE);
            if (state < 0) {
                release(detachFrom, state);
                return word(shadow, detachFrom, TOKEN);
            }
        }
        return NONE;
    }

    @Override
    public final void reset(Recycler recycler) throws VirtioException {
        stop(recycler);
        ring.segment().fill((byte) 0);
        restart(ring, size);
    }

    @Override
    public final void resize(int size, Recycler recycler) throws VirtioException {
        checkSize(size);
        int limit = transport.maxQueueSize(index);
        if (size > limit) {
            throw new IllegalArgumentException(
                    "%s: %d descriptors, the device's limit is %d".formatted(this, size, limit));
        }
        stop(recycler);
        CoherentMemory old = ring;
        CoherentMemory memory = mapping.alloc(ringBytes(size));
        if (memory == null) {
            old.segment().fill((byte) 0);
            restart(old, this.size);
            throw noMemory(size);
        }
        ring = memory;
        mapping.free(old);
        restart(memory, size);
    }

    /**
     * Gives everything back: unmaps what the device still holds and frees the ring. Needs a device
     * that is reset or gone and an owner that does not use the queue; from then on it is broken.
     * Idempotent.
     */
    public final void close() {
        if (closed) {
            return;
        }
        fail(this + " is closed");
        detachFrom = 0;
        while (detachUnused() != NONE) {}
        closed = true;
        if (indirect != null) {
            indirect.close();
        }
        CoherentMemory memory = ring;
        ring = null;
        mapping.free(memory);
    }

    /** As {@code queue 3 (requestq.0)}. */
    @Override
    public final String toString() {
        return "queue %d (%s)".formatted(index, request.name());
    }

    private void stop(Recycler recycler) throws VirtioException {
        if (closed) {
            throw new VirtioException(this + " is closed");
        }
        if (!features.has(Feature.RING_RESET)) {
            throw new VirtioException(
                    this + " cannot be reset alone: RING_RESET is not negotiated");
        }
        if (!transport.stopQueue(index)) {
            throw new VirtioException(this + " cannot be reset alone by its transport");
        }
        fail(this + " is being reset");
        detachFrom = 0;
        for (long token = detachUnused(); token != NONE; token = detachUnused()) {
            recycler.recycle(token);
        }
    }

    private void restart(CoherentMemory memory, int size) throws VirtioException {
        carryCounts();
        begin(memory, size);
        transport.startQueue(index, layout());
        BROKEN.setVolatile(this, null);
    }

    private void begin(CoherentMemory memory, int size) {
        ring = memory;
        forget(size);
        detachFrom = 0;
        usedLength = 0;
        CALLBACKS.setVolatile(this, request.callback() != null);
        initialise(memory);
    }

    private VirtioException noMemory(int size) {
        return new VirtioException(
                "%s: no memory that the device sees for %d descriptors (%d bytes)"
                        .formatted(this, size, ringBytes(size)));
    }

    /** Breaks the queue for something the device did; the listener hears of the first time. */
    final void breakQueue(String reason) {
        String sentence = this + ": " + reason;
        if (BROKEN.compareAndSet(this, null, sentence)) {
            listener.broken(this, sentence);
        }
    }

    @Override
    public final int addOutMapped(long[] mapHandles, int[] lengths, long[] tokens, int count) {
        return addMapped(mapHandles, lengths, tokens, count, false);
    }

    @Override
    public final int addInMapped(long[] mapHandles, int[] lengths, long[] tokens, int count) {
        return addMapped(mapHandles, lengths, tokens, count, true);
    }

    private int addMapped(
            long[] mapHandles, int[] lengths, long[] tokens, int count, boolean write) {
        checkMapped(mapHandles, lengths, tokens, count);
        int room = broken != null ? 0 : Math.min(count, free);
        exposeMapped(mapHandles, lengths, tokens, room, write);
        return room;
    }

    /** Exposes that many checked buffers of one premapped element each; there is room for them. */
    abstract void exposeMapped(
            long[] mapHandles, int[] lengths, long[] tokens, int count, boolean write);

    /** Throws for premapped buffers that could never be added. */
    private void checkMapped(long[] mapHandles, int[] lengths, long[] tokens, int count) {
        // The sign is set by a length below 1, a handle that is 0 or MAPPING_ERROR, and NONE.
        long bad = count;
        for (int i = 0; i < count; i++) {
            bad |= lengths[i] - 1L | (mapHandles[i] + 1 >>> 1) - 1 | tokens[i] & ~(tokens[i] - 1);
        }
        if (bad < 0) {
            throw neverAdded(mapHandles, lengths, tokens, count);
        }
    }

    private IllegalArgumentException neverAdded(
            long[] mapHandles, int[] lengths, long[] tokens, int count) {
        for (int i = 0; i < count; i++) {
            if (lengths[i] < 1) {
                return new IllegalArgumentException(
                        "%s: buffer of %d bytes, the least is 1".formatted(this, lengths[i]));
            }
            checkOne(null, mapHandles[i], lengths[i]);
            checkToken(tokens[i]);
        }
        return new IllegalArgumentException(
                "%s: %d buffers, the least is 0".formatted(this, count));
    }

    /** Throws for a buffer of one element that could never be added. */
    final void checkOne(MemorySegment segment, long offset, int length) {
        if (segment == null
                ? offset == 0 || offset == MapOps.MAPPING_ERROR
                : length > maxMappingSize) {
            throw neverFits(segment, offset, length);
        }
    }

    private IllegalArgumentException neverFits(MemorySegment segment, long offset, int length) {
        return new IllegalArgumentException(
                segment == null
                        ? "%s: premapped handle %#x was never handed out".formatted(this, offset)
                        : "%s: element of %d bytes, the mapping's limit is %d"
                                .formatted(this, length, maxMappingSize));
    }

    private void checkToken(long token) {
        if (token == NONE) {
            throw new IllegalArgumentException(
                    "%s: token %d is reserved for none".formatted(this, token));
        }
    }

    /** Throws for a buffer that could never be added; the bytes that the device may write. */
    final long checkMany(ScatterList buffers, int count, long token) {
        checkToken(token);
        if (count == 0 || count > maxElements()) {
            throw new IllegalArgumentException(
                    "%s: buffer of %d elements, limits are 1 and %d"
                            .formatted(this, count, maxElements()));
        }
        int outCount = buffers.outCount();
        long readable = 0;
        long writable = 0;
        for (int i = 0; i < count; i++) {
            int length = buffers.length(i);
            checkOne(buffers.segment(i), buffers.offset(i), length);
            if (i < outCount) {
                readable += length;
            } else {
                writable += length;
            }
        }
        if (readable + writable > Descriptor.MAX_TOTAL_BYTES) {
            throw new IllegalArgumentException(
                    "%s: buffer of %d bytes, the limit is %d"
                            .formatted(this, readable + writable, Descriptor.MAX_TOTAL_BYTES));
        }
        return Math.min(writable, BYTES);
    }
}
