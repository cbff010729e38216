package virtio.ring.queue;

import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.map.MapOps;

import java.lang.foreign.MemorySegment;

/** The driver's end of a split virtqueue (virtio 2.7). */
class SplitDriverEnd extends SplitDriverRing {
    SplitDriverEnd(Setup setup) throws VirtioException {
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
        int head = freeIds[shift + top];
        long handle = map(segment, offset, length, write);
        if (mapped(segment)) {
            if (handle == MapOps.MAPPING_ERROR) {
                return false;
            }
            note(head, handle, length, write);
            state |= MAPPED;
        }
        free = top;
        descriptor(
                descriptors() + Descriptor.offset((char) head),
                handle,
                length | (write ? (long) Descriptor.WRITE << 32 : 0));
        expose(head, state, token);
        return true;
    }

    @Override
    void exposeMapped(long[] mapHandles, int[] lengths, long[] tokens, int count, boolean write) {
        long[] shadow = this.shadow;
        char[] freeIds = this.freeIds;
        int top = shift + free - 1;
        long descriptors = descriptors();
        long flags = write ? (long) Descriptor.WRITE << 32 : 0;
        long writable = write ? BYTES : 0;
        for (int i = 0; i < count; i++) {
            int id = freeIds[top - i];
            descriptor(
                    descriptors + Descriptor.offset((char) id), mapHandles[i], lengths[i] | flags);
        }
        for (int i = 0; i < count; i++) {
            makeAvailable(freeIds[top - i], i);
        }
        for (int i = 0; i < count; i++) {
            int id = freeIds[top - i];
            setWord(shadow, id, STATE, HELD | lengths[i] & writable);
            setWord(shadow, id, TOKEN, tokens[i]);
        }
        free -= count;
        passAvailable(count);
    }

    private static void descriptor(long address, long handle, long word) {
        RingMemory.set64(address, handle);
        RingMemory.set64(address + SplitRing.DESCRIPTOR_WORD, word);
    }

    private boolean addMany(ScatterList buffers, int count, long token) {
        long writable = checkMany(buffers, count, token);
        if (free == 0 || broken != null) {
            return false;
        }
        // A table costs the device one more cache line and translation, a chain the ring's room: as
        // long as half of the ring stays free, the chain is the faster one.
        if (indirect != null && count > free - size / 2) {
            IndirectTables.Table table = indirect.take(count);
            if (table != null) {
                return addIndirect(buffers, table, writable, token);
            }
        }
        return count <= free && addDirect(buffers, count, writable, token);
    }

    private boolean addDirect(ScatterList buffers, int count, long writable, long token) {
        int outCount = buffers.outCount();
        int id = freeIds[shift + free - 1];
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
                setWord(shadow, id, HANDLE, handle);
                setWord(shadow, id, ELEMENT, element);
                boolean last = done == count - 1;
                int following = last ? 0 : freeIds[shift + free - 2 - done];
                setWord(shadow, id, STATE, link(following));
                int flags = (write ? Descriptor.WRITE : 0) | (last ? 0 : Descriptor.NEXT);
                descriptor(
                        descriptors() + Descriptor.offset((char) id),
                        handle,
                        length | (long) flags << 32 | (long) following << 48);
                id = following;
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
        int head = freeIds[shift + free - 1];
        free -= count;
        long chain = (long) (count - 1) << COUNT_SHIFT | word(shadow, head, STATE);
        expose(head, HELD | mapped | chain | writable, token);
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
            boolean last = i == count - 1;
            int flags =
                    ((element & FROM_DEVICE) != 0 ? Descriptor.WRITE : 0)
                            | (last ? 0 : Descriptor.NEXT);
            long link = last ? 0 : i + 1;
            descriptor(
                    table.address + (long) i * Descriptor.BYTES,
                    table.handles[i],
                    element & BYTES | (long) flags << 32 | link << 48);
        }
        int head = freeIds[shift + free - 1];
        descriptor(
                descriptors() + Descriptor.offset((char) head),
                table.mapHandle,
                (long) count * Descriptor.BYTES | (long) Descriptor.INDIRECT << 32);
        free--;
        tables[head] = table;
        expose(head, HELD | MAPPED | writable, token);
        return true;
    }

    private void expose(int head, long state, long token) {
        setWord(shadow, head, STATE, state);
        setWord(shadow, head, TOKEN, token);
        makeAvailable(head, 0);
        passAvailable(1);
    }

    @Override
    public long get() {
        if (used == usedSeen && !refresh() || broken != null) {
            return NONE;
        }
        long element = usedElement(used);
        int id = (int) element;
        if (Integer.compareUnsigned(id, mask) > 0) {
            return take(element);
        }
        long state = word(shadow, id, STATE);
        int length = (int) (element >>> 32);
        if (!plain(state) || Integer.compareUnsigned(length, (int) state) > 0) {
            return take(element);
        }
        usedLength = length;
        used++;
        setWord(shadow, id, STATE, 0);
        freeIds[free++] = (char) id;
        return word(shadow, id, TOKEN);
    }

    /** Gets any buffer, or breaks the queue. */
    private long take(long element) {
        if (!offered(element)) {
            return NONE;
        }
        int id = (int) element;
        usedLength = (int) (element >>> 32);
        used++;
        release(id, word(shadow, id, STATE));
        return word(shadow, id, TOKEN);
    }

    /** Gets the next used buffer, whatever it is: there is one, or the queue breaks. */
    long take() {
        return take(usedElement(used));
    }

    /** Looks for used buffers when all that were seen are got; false when there are none. */
    boolean more() {
        return refresh();
    }

    /** In order: whether a used element stands for buffers that are not got yet. */
    boolean inBatch() {
        return false;
    }

    @Override
    public final int get(long[] tokens, int[] usedLengths) {
        if (used == usedSeen && !more() || broken != null) {
            return 0;
        }
        int room = Math.min(tokens.length, usedLengths.length);
        int limit = (int) Math.min(room, usedSeen - used);
        int count = 0;
        while (count < limit) {
            if (!inBatch()) {
                count = getPlain(tokens, usedLengths, count, limit);
            }
            if (count < limit) {
                // A chain, or what the device may not do.
                long token = take();
                if (token == NONE) {
                    break;
                }
                tokens[count] = token;
                usedLengths[count] = usedLength;
                count++;
            }
        }
        return count;
    }

    /**
     * Gets used buffers of one descriptor each until there is another one; in order, those with a
     * used element of their own.
     *
     * @param from how many were got before
     * @return how many are got then
     */
    private int getPlain(long[] tokens, int[] usedLengths, int from, int limit) {
        long[] shadow = this.shadow;
        char[] freeIds = this.freeIds;
        long ring = usedRing() + SplitRing.RING;
        int first = (int) used - from;
        int free = this.free - from;
        int oldest = inOrder ? oldest() - from : 0;
        int count = from;
        for (; count < limit; count++) {
            long element = RingMemory.get64(ring + 8L * (first + count & mask));
            int id = (int) element;
            long state = word(shadow, id, STATE);
            int length = (int) (element >>> 32);
            if (Integer.compareUnsigned(id, mask) > 0
                    || Integer.compareUnsigned(length, (int) state) > 0
                    || inOrder && id != (oldest + count & mask)
                    || !plain(state) && !(plain(state & ~MAPPED) && unmapOne(id))) {
                break;
            }
            if (!inOrder) {
                freeIds[free + count] = (char) id;
            }
            setWord(shadow, id, STATE, 0);
            tokens[count] = word(shadow, id, TOKEN);
            usedLengths[count] = length;
        }
        pass(count - from);
        used += count - from;
        return count;
    }

    /** Whether an outstanding buffer of that id may have that length; else the queue broke. */
    final boolean offered(long element) {
        int id = (int) element;
        if (id < 0 || id > mask) {
            breakQueue(
                    "the device used descriptor %d, the limit is %d"
                            .formatted(Integer.toUnsignedLong(id), size - 1));
            return false;
        }
        long state = word(shadow, id, STATE);
        if (state >= 0) {
            breakQueue("the device used descriptor %d, which is not outstanding".formatted(id));
            return false;
        }
        long length = element >>> 32;
        if (length > (state & BYTES)) {
            breakQueue(
                    "the device wrote %d bytes to the buffer of descriptor %d, the limit is %d"
                            .formatted(length, id, state & BYTES));
            return false;
        }
        return true;
    }
}
