package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.MapOps;
import virtio.api.status.QueueSnapshot;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** The driver's end of a packed virtqueue (virtio 2.8). */
class PackedDriverEnd extends DriverEnd {
    private static final VarHandle CHECKED64 =
            ValueLayout.JAVA_LONG.withOrder(ByteOrder.LITTLE_ENDIAN).varHandle();

    /** The device writes its event suppression while the driver writes the rest. */
    private static final long LINE_BYTES = 128;

    /** No used descriptor's word: neither of its flags is like the other. */
    static final long NOTHING = (long) PackedRing.AVAIL << PackedRing.FLAGS_SHIFT;

    private long ring;
    private long driverEvent;
    private long deviceEvent;

    // Where the next available descriptor goes, what flags it gets, and descriptors so far.
    private int availableSlot;
    private int availableFlags;
    private long available;

    /** Descriptors that the device may have been notified of. */
    private long notified;

    // Where the next used descriptor is expected and what flags it will have.
    int usedSlot;
    int usedFlags;
    private long used;

    /** Where the next interrupt is due, as a count of descriptors. */
    private long event;

    private boolean suppressed;

    // Descriptors beyond the first of their buffers, and buffers before the last reset.
    private long moreAvailable;
    private long moreUsed;
    private long addedBefore;
    private long usedBefore;

    private QueueLayout layout;

    PackedDriverEnd(
            int index,
            QueueRequest request,
            int size,
            Features features,
            DeviceMapping mapping,
            Transport transport,
            BrokenListener listener)
            throws VirtioException {
        super(index, request, size, features, mapping, transport, listener);
    }

    @Override
    public QueueLayout layout() {
        return layout;
    }

    private static long driverEventOffset(int size) {
        return ((long) Descriptor.BYTES * size + LINE_BYTES - 1) & -LINE_BYTES;
    }

    @Override
    long ringBytes(int size) {
        return driverEventOffset(size) + 2 * LINE_BYTES;
    }

    @Override
    void checkSize(int size) {
        if (size < 1 || size > PackedRing.MAX_SIZE) {
            throw new IllegalArgumentException(
                    "%s: %d descriptors, a packed queue has 1 to %d"
                            .formatted(this, size, PackedRing.MAX_SIZE));
        }
    }

    @Override
    void initialise(CoherentMemory memory) {
        long eventOffset = driverEventOffset(size);
        ring = memory.segment().address();
        driverEvent = ring + eventOffset;
        deviceEvent = driverEvent + LINE_BYTES;
        availableSlot = 0;
        availableFlags = PackedRing.AVAIL;
        available = 0;
        notified = 0;
        usedSlot = 0;
        usedFlags = PackedRing.AVAIL | PackedRing.USED;
        used = 0;
        moreAvailable = 0;
        moreUsed = 0;
        layout =
                new QueueLayout(
                        size,
                        memory.mapHandle(),
                        memory.mapHandle() + eventOffset,
                        memory.mapHandle() + eventOffset + LINE_BYTES);
        event = 0;
        suppressed = !callbacks;
        RingMemory.setOpaque32(driverEvent, wish());
    }

    @Override
    public boolean add(ScatterList buffers, long token) {
        int count = buffers.count();
        if (count != 1 || token == NONE) {
            return addMany(buffers, count, token);
        }
        MemorySegment segment = buffers.segment(0);
        long offset = buffers.offset(0);
        int length = buffers.length(0);
        checkOne(segment, offset, length);
        if (free == 0 || broken != null) {
            return false;
        }
        boolean write = buffers.outCount() == 0;
        long handle = map(segment, offset, length, write);
        int id = freeIds[shift + free - 1];
        int at = id << SHADOW_SHIFT;
        long[] shadow = this.shadow;
        long state = HELD | (write ? length : 0);
        if (segment != null) {
            if (handle == MapOps.MAPPING_ERROR) {
                return false;
            }
            state |= MAPPED;
            shadow[at + HANDLE] = handle;
            shadow[at + ELEMENT] = length | MAPPED | (write ? FROM_DEVICE : 0);
        }
        free--;
        expose(id, state, token, handle, length, write ? Descriptor.WRITE : 0);
        return true;
    }

    private boolean addMany(ScatterList buffers, int count, long token) {
        long writable = checkMany(buffers, count, token);
        if (free == 0 || broken != null) {
            return false;
        }
        if (indirect != null) {
            IndirectTables.Table table = indirect.take(count);
            if (table != null) {
                return addIndirect(buffers, table, writable, token);
            }
        }
        return count <= free && addDirect(buffers, count, writable, token);
    }

    /** Makes a buffer of one descriptor available. */
    private void expose(int id, long state, long token, long handle, long length, int flags) {
        shadow[(id << SHADOW_SHIFT) + STATE] = state;
        shadow[(id << SHADOW_SHIFT) + TOKEN] = token;
        long descriptor = ring + (long) availableSlot * Descriptor.BYTES;
        RingMemory.set64(descriptor, handle);
        // The whole word at once, so that this store is also the barrier (DRV-PACKED-016).
        RingMemory.setRelease64(descriptor + PackedRing.WORD, word(length, id, flags));
        advance();
    }

    private long word(long length, int id, int flags) {
        return length
                | (long) id << PackedRing.ID_SHIFT
                | (long) (flags | availableFlags) << PackedRing.FLAGS_SHIFT;
    }

    private void advance() {
        available++;
        if (++availableSlot == size) {
            availableSlot = 0;
            availableFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
    }

    private boolean addDirect(ScatterList buffers, int count, long writable, long token) {
        int outCount = buffers.outCount();
        int head = freeIds[shift + free - 1];
        long[] shadow = this.shadow;
        long mapped = 0;
        int done = 0;
        try {
            for (; done < count; done++) {
                boolean write = done >= outCount;
                MemorySegment segment = buffers.segment(done);
                int length = buffers.length(done);
                long handle = map(segment, buffers.offset(done), length, write);
                long element = length | (write ? FROM_DEVICE : 0);
                if (segment != null) {
                    if (handle == MapOps.MAPPING_ERROR) {
                        break;
                    }
                    element |= MAPPED;
                    mapped = MAPPED;
                }
                int at = freeIds[shift + free - 1 - done] << SHADOW_SHIFT;
                shadow[at + HANDLE] = handle;
                shadow[at + ELEMENT] = element;
                shadow[at + STATE] = done == count - 1 ? 0 : link(freeIds[shift + free - 2 - done]);
            }
        } finally {
            if (done < count) {
                while (done > 0) {
                    int at = freeIds[shift + free - done] << SHADOW_SHIFT;
                    unmap(shadow[at + HANDLE], shadow[at + ELEMENT]);
                    done--;
                }
            }
        }
        if (done < count) {
            return false;
        }
        long chain = (long) (count - 1) << COUNT_SHIFT | shadow[(head << SHADOW_SHIFT) + STATE];
        shadow[(head << SHADOW_SHIFT) + STATE] = HELD | mapped | chain | writable;
        shadow[(head << SHADOW_SHIFT) + TOKEN] = token;
        // The first becomes available when all of them are (DRV-PACKED-011).
        long first = ring + (long) availableSlot * Descriptor.BYTES + PackedRing.WORD;
        long firstWord = 0;
        for (int i = 0; i < count; i++) {
            int at = freeIds[shift + free - 1 - i] << SHADOW_SHIFT;
            int flags =
                    (i < outCount ? 0 : Descriptor.WRITE) | (i < count - 1 ? Descriptor.NEXT : 0);
            long descriptor = ring + (long) availableSlot * Descriptor.BYTES;
            long word = word(shadow[at + ELEMENT] & BYTES, head, flags);
            RingMemory.set64(descriptor, shadow[at + HANDLE]);
            if (i == 0) {
                firstWord = word;
            } else {
                RingMemory.set64(descriptor + PackedRing.WORD, word);
            }
            advance();
        }
        RingMemory.setRelease64(first, firstWord);
        free -= count;
        moreAvailable += count - 1;
        return true;
    }

    private boolean addIndirect(
            ScatterList buffers, IndirectTables.Table table, long writable, long token) {
        if (!map(buffers, table)) {
            return false;
        }
        int count = table.count;
        for (int i = 0; i < count; i++) {
            long element = table.elements[i];
            long descriptor = table.address + (long) i * Descriptor.BYTES;
            long flags = (element & FROM_DEVICE) != 0 ? Descriptor.WRITE : 0;
            RingMemory.set64(descriptor, table.handles[i]);
            RingMemory.set64(
                    descriptor + PackedRing.WORD,
                    element & BYTES | flags << PackedRing.FLAGS_SHIFT);
        }
        int id = freeIds[shift + --free];
        tables[id] = table;
        expose(
                id,
                HELD | MAPPED | writable,
                token,
                table.mapHandle,
                (long) count * Descriptor.BYTES,
                Descriptor.INDIRECT);
        return true;
    }

    @Override
    public boolean kickPrepare() {
        long old = notified;
        long now = available;
        if (now == old || broken != null) {
            return false;
        }
        syncCallbacks();
        notified = now;
        // What was made available must be visible before the wish to be notified is read
        // (DRV-PACKED-017).
        VarHandle.fullFence();
        return PackedRing.needEvent(RingMemory.getOpaque32(deviceEvent), now, old, size, eventIdx);
    }

    @Override
    int notificationOffset() {
        return availableSlot | (availableFlags == PackedRing.AVAIL ? 1 << 15 : 0);
    }

    @Override
    public long get() {
        long word = nextUsed();
        return word != NOTHING ? take(word) : NONE;
    }

    /** The word of the next used descriptor, or {@link #NOTHING}. */
    final long nextUsed() {
        // First of all: the ring of a closed queue is no longer there to be read.
        if (broken != null) {
            return NOTHING;
        }
        long word = usedWord();
        if (!PackedRing.matches(word, usedFlags)) {
            if (!syncCallbacks()) {
                return NOTHING;
            }
            // An interrupt was only asked for now: what came before would go unnoticed.
            word = usedWord();
            if (!PackedRing.matches(word, usedFlags)) {
                return NOTHING;
            }
        }
        return word;
    }

    private long usedWord() {
        return RingMemory.getAcquire64(ring + (long) usedSlot * Descriptor.BYTES + PackedRing.WORD);
    }

    private long take(long word) {
        long length = length(word);
        if (length < 0) {
            return NONE;
        }
        int id = id(word);
        long state = shadow[(id << SHADOW_SHIFT) + STATE];
        usedLength = (int) length;
        passUsed(state);
        release(id, state);
        return shadow[(id << SHADOW_SHIFT) + TOKEN];
    }

    static int id(long word) {
        return (int) (word >>> PackedRing.ID_SHIFT) & 0xFFFF;
    }

    /** What was written to an outstanding buffer; -1 when it is none, and the queue broke. */
    final long length(long word) {
        int id = id(word);
        if (id >= size) {
            return refuse("the device used buffer %d, the limit is %d".formatted(id, size - 1));
        }
        long state = shadow[(id << SHADOW_SHIFT) + STATE];
        if (state >= 0) {
            return refuse("the device used buffer %d, which is not outstanding".formatted(id));
        }
        long length = word & BYTES;
        if (length > (state & BYTES)) {
            // Without the flag the length is reserved (virtio 2.8.5). QEMU never sets the flag, and
            // its length is a true one: it counts where it can be one.
            return (word >>> PackedRing.FLAGS_SHIFT & Descriptor.WRITE) == 0
                    ? 0
                    : refuse(
                            "the device wrote %d bytes to buffer %d, the limit is %d"
                                    .formatted(length, id, state & BYTES));
        }
        return length;
    }

    final void passUsed(long state) {
        if ((state >>> COUNT_SHIFT & 0x7FFF) != 0) {
            // Apart from the usual case, which then need not wait for the load of the state.
            int more = count(state) - 1;
            moreUsed += more;
            used += more;
            usedSlot += more;
        }
        used++;
        if (++usedSlot >= size) {
            usedSlot -= size;
            usedFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
    }

    private long refuse(String reason) {
        breakQueue(reason);
        return -1;
    }

    @Override
    public int get(long[] tokens, int[] usedLengths) {
        int limit = Math.min(tokens.length, usedLengths.length);
        int count = 0;
        while (count < limit) {
            long token = get();
            if (token == NONE) {
                break;
            }
            tokens[count] = token;
            usedLengths[count] = usedLength;
            count++;
        }
        return count;
    }

    /**
     * Tells the device what disableCallback wished, or where the next interrupt is due; whether the
     * latter was news.
     */
    private boolean syncCallbacks() {
        if (!callbacks) {
            if (!suppressed) {
                suppressed = true;
                RingMemory.setOpaque32(driverEvent, wish());
            }
            return false;
        }
        if (!eventIdx || event >= used) {
            return false;
        }
        event = used;
        RingMemory.setOpaque32(driverEvent, wish());
        VarHandle.fullFence();
        return true;
    }

    @Override
    public int enableCallbackPrepare() {
        enable(used);
        return usedSlot | (usedFlags != 0 ? 1 << 15 : 0);
    }

    @Override
    public boolean poll(int prepared) {
        if (broken != null) {
            return false;
        }
        // The wish to be called must be visible before used buffers are looked for.
        VarHandle.fullFence();
        long slot = prepared & 0x7FFF;
        return PackedRing.matches(
                RingMemory.getAcquire64(ring + slot * Descriptor.BYTES + PackedRing.WORD),
                prepared >>> 15 == 0 ? 0 : PackedRing.AVAIL | PackedRing.USED);
    }

    @Override
    public boolean enableCallbackDelayed() {
        long most = eventIdx ? (notified - used) * 3 / 4 : 0;
        enable(used + most);
        if (broken != null) {
            return true;
        }
        VarHandle.fullFence();
        return !PackedRing.matches(usedWord(), usedFlags);
    }

    private void enable(long event) {
        if (broken != null) {
            return;
        }
        callbacks = true;
        suppressed = false;
        this.event = event;
        RingMemory.setOpaque32(driverEvent, wish());
    }

    /** The driver event suppression structure as it should be. */
    private int wish() {
        if (suppressed) {
            return PackedRing.DISABLE << 16;
        }
        return eventIdx ? PackedRing.eventAt(event, size) : PackedRing.ENABLE << 16;
    }

    @Override
    boolean moreUsed(MemorySegment ring) {
        // Slot and flags are read while the owner may move on: at worst this is spurious.
        int slot = usedSlot;
        long word =
                (long) CHECKED64.getAcquire(ring, (long) slot * Descriptor.BYTES + PackedRing.WORD);
        return PackedRing.matches(word, usedFlags);
    }

    @Override
    void carryCounts() {
        addedBefore += available - moreAvailable;
        usedBefore += used - moreUsed;
    }

    @Override
    QueueSnapshot snapshot(long interrupts, String broken) {
        return new QueueSnapshot(
                index,
                name(),
                "packed",
                size,
                free,
                availableSlot,
                usedSlot,
                addedBefore + available - moreAvailable,
                usedBefore + used - moreUsed,
                notifications,
                interrupts,
                broken);
    }
}
