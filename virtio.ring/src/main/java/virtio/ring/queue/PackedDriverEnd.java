package virtio.ring.queue;

import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.map.MapOps;

import java.lang.foreign.MemorySegment;

/** The driver's end of a packed virtqueue (virtio 2.8). */
class PackedDriverEnd extends PackedDriverRing {
    PackedDriverEnd(Setup setup) throws VirtioException {
        super(setup);
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
        int top = free - 1;
        if (top < 0 || broken != null) {
            return false;
        }
        boolean write = buffers.outCount() == 0;
        long state = HELD | (write ? length : 0);
        int id = freeIds[shift + top];
        long handle = map(segment, offset, length, write);
        if (mapped(segment)) {
            if (handle == MapOps.MAPPING_ERROR) {
                return false;
            }
            note(id, handle, length, write);
            state |= MAPPED;
        }
        free = top;
        expose(id, state, token, handle, length, write ? Descriptor.WRITE : 0);
        return true;
    }

    @Override
    void exposeMapped(long[] mapHandles, int[] lengths, long[] tokens, int count, boolean write) {
        // What the device sees comes first: its lines are on their way here meanwhile.
        makeAvailable(mapHandles, lengths, count, write ? Descriptor.WRITE : 0);
        long[] shadow = this.shadow;
        char[] freeIds = this.freeIds;
        int top = shift + free - 1;
        long writable = write ? BYTES : 0;
        for (int i = 0; i < count; i++) {
            int id = freeIds[top - i];
            setWord(shadow, id, STATE, HELD | lengths[i] & writable);
            setWord(shadow, id, TOKEN, tokens[i]);
        }
        free -= count;
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
        setWord(shadow, id, TOKEN, token);
        setWord(shadow, id, STATE, state);
        makeAvailable(handle, length, id, flags);
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
                if (mapped(segment)) {
                    if (handle == MapOps.MAPPING_ERROR) {
                        break;
                    }
                    element |= MAPPED;
                    mapped = MAPPED;
                }
                int id = freeIds[shift + free - 1 - done];
                setWord(shadow, id, HANDLE, handle);
                setWord(shadow, id, ELEMENT, element);
                setWord(
                        shadow,
                        id,
                        STATE,
                        done == count - 1 ? 0 : link(freeIds[shift + free - 2 - done]));
            }
        } finally {
            if (done < count) {
                while (done > 0) {
                    int undone = freeIds[shift + free - done];
                    unmap(word(shadow, undone, HANDLE), word(shadow, undone, ELEMENT));
                    done--;
                }
            }
        }
        if (done < count) {
            return false;
        }
        long chain = (long) (count - 1) << COUNT_SHIFT | word(shadow, head, STATE);
        setWord(shadow, head, STATE, HELD | mapped | chain | writable);
        setWord(shadow, head, TOKEN, token);
        for (int i = 0; i < count; i++) {
            int id = freeIds[shift + free - 1 - i];
            int flags =
                    (i < outCount ? 0 : Descriptor.WRITE) | (i < count - 1 ? Descriptor.NEXT : 0);
            makeAvailable(word(shadow, id, HANDLE), word(shadow, id, ELEMENT) & BYTES, head, flags);
        }
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
    public long get() {
        long word = nextUsed();
        if (word == PackedRing.NOTHING) {
            return NONE;
        }
        int id = PackedRing.id(word);
        if (id >= size) {
            return take(word);
        }
        long token = word(shadow, id, TOKEN);
        long state = word(shadow, id, STATE);
        if (!plain(state) || Integer.compareUnsigned((int) word, (int) state) > 0) {
            return take(word);
        }
        usedLength = (int) word;
        passUsed(1);
        setWord(shadow, id, STATE, 0);
        freeIds[free++] = (char) id;
        return token;
    }

    /** Gets any buffer, or breaks the queue. */
    private long take(long word) {
        long length = length(word);
        if (length < 0) {
            return NONE;
        }
        int id = PackedRing.id(word);
        long state = word(shadow, id, STATE);
        usedLength = (int) length;
        passBuffer(state);
        release(id, state);
        return word(shadow, id, TOKEN);
    }

    /** What was written to an outstanding buffer; -1 when it is none, and the queue broke. */
    final long length(long word) {
        int id = PackedRing.id(word);
        if (id >= size) {
            return refuse("the device used buffer %d, the limit is %d".formatted(id, size - 1));
        }
        long state = word(shadow, id, STATE);
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

    private long refuse(String reason) {
        breakQueue(reason);
        return -1;
    }

    /** In order: whether a used descriptor stands for buffers that are not got yet. */
    boolean inBatch() {
        return false;
    }

    @Override
    public int get(long[] tokens, int[] usedLengths) {
        int limit = Math.min(tokens.length, usedLengths.length);
        int count = 0;
        boolean more = broken == null;
        while (more && count < limit) {
            int most = Math.min(limit - count, size - usedSlot());
            int ready = inBatch() ? 0 : ready(most);
            int plain = getPlain(tokens, usedLengths, count, ready);
            count += plain;
            // Each look at what the device is about to write costs both: no more than one.
            more = ready == most;
            if (plain < ready || count == 0 || inBatch()) {
                // A chain, what the device may not do, or the look of one that finds nothing.
                long token = get();
                more = token != NONE;
                if (more) {
                    tokens[count] = token;
                    usedLengths[count] = usedLength;
                    count++;
                }
            }
        }
        return count;
    }
}
