package virtio.ring.queue;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The device's end of a virtqueue, whatever its layout.
 *
 * <p>The driver is not trusted: each descriptor is read once into a {@link RingChain}, checked
 * there, and every address goes through {@link DriverMemory}. A broken promise breaks this queue
 * and nothing else: it then has nothing available, and {@link Export#queueBroken} hears of it once.
 *
 * <p>Threading: as {@link DeviceQueue}. {@link #stop} needs that no thread is in {@link #serve}.
 */
public abstract class DeviceEnd extends Padding implements DeviceQueue {
    /** What the core offers of the ring's features. */
    public static final Features FEATURES =
            Features.of(
                    Feature.INDIRECT_DESC,
                    Feature.EVENT_IDX,
                    Feature.VERSION_1,
                    Feature.RING_PACKED,
                    Feature.IN_ORDER,
                    Feature.RING_RESET);

    /** Most descriptors of a queue. */
    public static final int MAX_SIZE = 32768;

    /** A queue that is never empty lets others of its thread have their turn after so many. */
    private static final int ROUNDS = 64;

    /** So that no two ends have the same {@link #key}. */
    private static final AtomicInteger KEYS = new AtomicInteger();

    private static final VarHandle BROKEN;
    private static final VarHandle TAKES;

    static {
        try {
            MethodHandles.Lookup lookup = MethodHandles.lookup();
            BROKEN = lookup.findVarHandle(DeviceEnd.class, "broken", String.class);
            TAKES = lookup.findVarHandle(DeviceEnd.class, "takes", int.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    /** What its chains know it by, above 0. */
    final int key = KEYS.incrementAndGet() & Integer.MAX_VALUE;

    final int index;
    final int size;
    final boolean eventIdx;
    final boolean indirect;
    final DriverMemory memory;

    /** Null without IN_ORDER: buffers are used as they are completed. */
    final Turns turns;

    /** The most that a used length can say. */
    static final long BYTES = 0xFFFFFFFFL;

    /** What {@link #takes} and {@link #uses} say: nothing, by the short way, by the long way. */
    static final int NOTHING = 0;

    static final int PLAIN = 1;
    static final int TRACKED = 2;

    /** The backend notifies by itself. */
    private boolean held;

    private String broken;

    private int takes;
    private int uses;

    private final Export export;

    DeviceEnd(
            int index, QueueLayout layout, Features features, DriverMemory memory, Export export) {
        this.index = index;
        this.size = layout.size();
        this.memory = memory;
        this.export = export;
        eventIdx = features.has(Feature.EVENT_IDX);
        indirect = features.has(Feature.INDIRECT_DESC);
        turns = features.has(Feature.IN_ORDER) ? new Turns(Math.clamp(size, 0, MAX_SIZE)) : null;
        takes = layout.inflight() == null ? PLAIN : TRACKED;
        uses = takes;
    }

    /**
     * Starts serving a queue: translates its areas once, and recovers what was in flight.
     *
     * <p>A queue that goes on from an earlier life may have buffers waiting that nobody will notify
     * about: the caller has it served once.
     *
     * @param features what was negotiated
     * @throws VirtioException when size, addresses or inflight region are not acceptable, naming
     *     value and limit
     */
    public static DeviceEnd start(
            int index, QueueLayout layout, Features features, DriverMemory memory, Export export)
            throws VirtioException {
        return features.has(Feature.RING_PACKED)
                ? new PackedDeviceEnd(index, layout, features, memory, export)
                : new SplitDeviceEnd(index, layout, features, memory, export);
    }

    /** Stops using the driver's memory; the next available index. Idempotent. */
    public final int stop() {
        uses = NOTHING;
        quiesce();
        return nextAvailable();
    }

    /**
     * Has nothing more available from here on, so that {@link #serve} returns however busy the
     * driver is; what was taken can be completed. From any thread.
     */
    public final void quiesce() {
        TAKES.setVolatile(this, NOTHING);
    }

    /**
     * How {@link #next} takes buffers: plain ones are not recorded as in flight. NOTHING once
     * quiesced, broken or stopped; a plain read, which is a new one whenever the ring is looked at
     * anew.
     */
    final int takes() {
        return takes;
    }

    /** The same for {@link #complete}; NOTHING once broken, or stopped: memory may be gone. */
    final int uses() {
        return uses;
    }

    final boolean serving() {
        return uses != NOTHING;
    }

    /** Why the queue is broken, with value and limit; null when it works. */
    public final String broken() {
        return (String) BROKEN.getVolatile(this);
    }

    /**
     * Runs the backend until nothing new is available, with the driver's notifications off
     * meanwhile, and notifies the driver. A backend that fails breaks the queue.
     */
    public final void serve(Backend backend) {
        for (int round = 0; takes() != NOTHING; round++) {
            if (round == ROUNDS) {
                schedule();
                return;
            }
            suppress();
            try {
                backend.process(this);
            } catch (VirtioException | RuntimeException e) {
                breakQueue("the backend failed: " + e);
            }
            if (!held) {
                notifyDriver();
            }
            if (!serving() || !awaitNotification()) {
                return;
            }
        }
    }

    @Override
    public final int index() {
        return index;
    }

    @Override
    public final int size() {
        return size;
    }

    @Override
    public final Chain newChain() {
        return new RingChain(this);
    }

    @Override
    public final void holdNotifications(boolean hold) {
        held = hold;
    }

    @Override
    public final void schedule() {
        export.schedule(index);
    }

    /** The address of an area, as {@link RingMemory#keep} has it. */
    final long area(String name, long handle, long length, int alignment, boolean write)
            throws VirtioException {
        long address = memory.translate(handle, length, write);
        if (address == DriverMemory.FAULT) {
            throw new VirtioException(
                    "queue %d: the %s, %d bytes at %#x, is not in memory that the driver shared"
                            .formatted(index, name, length, handle));
        }
        if ((handle | address) % alignment != 0) {
            throw new VirtioException(
                    "queue %d: the %s at %#x is not aligned to %d bytes"
                            .formatted(index, name, handle, alignment));
        }
        return RingMemory.keep(address);
    }

    /** The position that a later life of the queue starts from. */
    abstract int nextAvailable();

    /** Asks the driver not to notify, and notes what is available. */
    abstract void suppress();

    /**
     * Asks the driver to notify of what comes after the buffers seen so far.
     *
     * @return whether more came meanwhile
     */
    abstract boolean awaitNotification();

    final void interrupt() {
        export.interrupt(index);
    }

    /** Breaks the queue; false, for callers to return. */
    final boolean breakQueue(String reason) {
        uses = NOTHING;
        quiesce();
        String sentence = "queue %d: %s".formatted(index, reason);
        if (BROKEN.compareAndSet(this, null, sentence)) {
            export.queueBroken(index, sentence);
        }
        return false;
    }

    /** Tells the driver of a used buffer, to which that many bytes were written. */
    abstract void use(int id, int descriptors, long length);

    /** Until {@link #publish}, the driver is not told of what is used. */
    abstract void beginBurst();

    /** Tells the driver of all used since {@link #beginBurst}. */
    abstract void publish();

    @Override
    public final void complete(Chain[] chains, long[] written, int count) {
        if (uses == PLAIN && (turns == null || turns.areNext(chains, count))) {
            usePlain(chains, written, count);
            if (turns != null) {
                turns.pass(count);
            }
            return;
        }
        for (int i = 0; i < count; i++) {
            close((RingChain) chains[i], written[i]);
        }
        if (!serving()) {
            return;
        }
        beginBurst();
        for (int i = 0; i < count; i++) {
            useTracked((RingChain) chains[i], Math.min(written[i], BYTES));
        }
        publish();
    }

    /** Closes, uses and publishes plain chains whose turn it is. */
    abstract void usePlain(Chain[] chains, long[] written, int count);

    /** With IN_ORDER: notes the turn of a buffer just taken; false when the queue broke. */
    final boolean takeTurn(RingChain chain) {
        if (turns.take(chain)) {
            return true;
        }
        chain.key = key;
        return breakQueue("%d buffers outstanding, the limit is %d".formatted(size + 1, size));
    }

    /** Uses a buffer; with IN_ORDER all whose turn it is, now that this one is completed. */
    final void useTracked(RingChain chain, long length) {
        if (turns != null && !turns.isNext(chain)) {
            turns.done(chain, length);
            return;
        }
        use(chain.id(), chain.descriptors(), length);
        if (turns == null) {
            return;
        }
        // Each gets an element of its own: drivers exist that look at every one of them.
        while (turns.next()) {
            use(turns.id(), turns.descriptors(), turns.length());
        }
    }

    final RingChain open(Chain into) {
        RingChain chain = (RingChain) into;
        if (chain.key != key) {
            throw notFree(chain);
        }
        return chain;
    }

    /** The chain holds a buffer from here on; true, for callers to return. */
    final boolean opened(RingChain chain) {
        chain.key = -key;
        return true;
    }

    private IllegalArgumentException notFree(RingChain chain) {
        return new IllegalArgumentException(
                chain.open()
                        ? "queue %d: the chain holds buffer %d, which is not completed"
                                .formatted(index, chain.id())
                        : "queue %d: the chain belongs to queue %d"
                                .formatted(index, chain.end.index));
    }

    final void close(RingChain chain, long written) {
        // Most write nothing, or do so elsewhere: then the buffer need not be looked at.
        if (chain.key != -key || written != 0 && (written < 0 || written > chain.writableBytes())) {
            throw notCompletable(chain, written);
        }
        chain.key = key;
    }

    private IllegalArgumentException notCompletable(RingChain chain, long written) {
        return new IllegalArgumentException(
                chain.key != -key
                        ? "queue %d: complete of a chain that is not open".formatted(index)
                        : "queue %d: %d bytes written, the chain's limit is %d"
                                .formatted(index, written, chain.writableBytes()));
    }

    /** Neither empty nor beyond the end of the handles. */
    static boolean sane(long handle, long length) {
        return Long.compareUnsigned(handle + length, handle) > 0;
    }

    /** Adds an element to a chain; false when the queue broke. */
    final boolean element(RingChain chain, long handle, long length, boolean write) {
        if (length == 0) {
            return breakQueue("descriptor of 0 bytes, the limit is 1");
        }
        if (!write && chain.writableBytes() != 0) {
            return breakQueue("a device-readable descriptor follows a device-writable one");
        }
        long total = chain.readableBytes() + chain.writableBytes() + length;
        if (total > Descriptor.MAX_TOTAL_BYTES) {
            return breakQueue(
                    "buffer of %d bytes, the limit is %d"
                            .formatted(total, Descriptor.MAX_TOTAL_BYTES));
        }
        if (!sane(handle, length)) {
            return fault(handle, length, write);
        }
        long address = memory.translate(handle, length, write);
        if (address != DriverMemory.FAULT) {
            chain.append(address, length, write);
            return true;
        }
        return pieces(chain, handle, length, write);
    }

    /** An element that spans regions of the driver's memory. */
    private boolean pieces(RingChain chain, long handle, long length, boolean write) {
        long at = handle;
        long rest = length;
        while (rest > 0) {
            long piece = Math.min(rest, memory.reach(at, write));
            long address = piece <= 0 ? 0 : memory.translate(at, piece, write);
            if (address == DriverMemory.FAULT) {
                return fault(handle, length, write);
            }
            if (chain.pieces() == RingChain.MAX_PIECES) {
                return breakQueue(
                        "buffer in more than %d pieces of memory".formatted(RingChain.MAX_PIECES));
            }
            chain.append(address, piece, write);
            at += piece;
            rest -= piece;
        }
        return true;
    }

    /** Whether an indirect table is acceptable; else the queue broke. */
    final boolean table(long handle, long bytes) {
        if (!indirect) {
            return breakQueue("an indirect descriptor without INDIRECT_DESC negotiated");
        }
        long limit = (long) Math.max(size, Descriptor.MAX_INDIRECT) * Descriptor.BYTES;
        if (bytes % Descriptor.BYTES != 0 || bytes == 0 || bytes > limit) {
            return breakQueue(
                    "indirect table of %d bytes, limits are %d and %d in steps of %d"
                            .formatted(bytes, Descriptor.BYTES, limit, Descriptor.BYTES));
        }
        return sane(handle, bytes) || fault(handle, bytes, false);
    }

    final boolean fault(long handle, long length, boolean write) {
        return breakQueue(
                "%d bytes at %#x are not shared by the driver for %s"
                        .formatted(length, handle, write ? "writing" : "reading"));
    }
}
