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
                descriptors() + (long) head * Descriptor.BYTES,
                handle,
                length | (write ? (long) Descriptor.WRITE << 32 : 0));
        expose(head, state, token);
        return true;
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
                int at = id << SHADOW_SHIFT;
                shadow[at + HANDLE] = handle;
                shadow[at + ELEMENT] = element;
                boolean last = done == count - 1;
                int following = last ? 0 : freeIds[shift + free - 2 - done];
                shadow[at + STATE] = link(following);
                int flags = (write ? Descriptor.WRITE : 0) | (last ? 0 : Descriptor.NEXT);
                descriptor(
                        descriptors() + (long) id * Descriptor.BYTES,
                        handle,
                        length | (long) flags << 32 | (long) following << 48);
                id = following;
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
        int head = freeIds[shift + free - 1];
        free -= count;
        long chain = (long) (count - 1) << COUNT_SHIFT | shadow[(head << SHADOW_SHIFT) + STATE];
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
                descriptors() + (long) head * Descriptor.BYTES,
                table.mapHandle,
                (long) count * Descriptor.BYTES | (long) Descriptor.INDIRECT << 32);
        free--;
        tables[head] = table;
        expose(head, HELD | MAPPED | writable, token);
        return true;
    }

    private void expose(int head, long state, long token) {
        shadow[(head << SHADOW_SHIFT) + STATE] = state;
        shadow[(head << SHADOW_SHIFT) + TOKEN] = token;
        makeAvailable(head);
    }

    @Override
    public long get() {
        if (used == usedSeen && !refresh() || broken != null) {
            return NONE;
        }
        long element = usedElement(used);
        int id = (int) element;
        if (id < 0 || id > mask) {
            return outOfRange(id);
        }
        int at = id << SHADOW_SHIFT;
        long state = shadow[at + STATE];
        long length = element >>> 32;
        if (state >= 0 || length > (state & BYTES)) {
            return notOffered(id, length, state);
        }
        usedLength = (int) length;
        used++;
        release(id, state);
        return shadow[at + TOKEN];
    }

    @Override
    public int get(long[] tokens, int[] usedLengths) {
        if (used == usedSeen && !refresh() || broken != null) {
            return 0;
        }
        int room = Math.min(tokens.length, usedLengths.length);
        int limit = (int) Math.min(room, usedSeen - used);
        long[] shadow = this.shadow;
        char[] freeIds = this.freeIds;
        int free = this.free;
        long ring = usedRing() + SplitRing.RING;
        int first = (int) used;
        long element = 0;
        int count = 0;
        for (; count < limit; count++) {
            element = RingMemory.get64(ring + 8L * (first + count & mask));
            int id = (int) element;
            if (id < 0 || id > mask) {
                break;
            }
            int at = id << SHADOW_SHIFT;
            long token = shadow[at + TOKEN];
            long state = shadow[at + STATE];
            if (state >= 0 || element >>> 32 > (state & BYTES)) {
                break;
            }
            if (plain(state)) {
                shadow[at + STATE] = 0;
                freeIds[free++] = (char) id;
            } else {
                this.free = free;
                release(id, state);
                free = this.free;
            }
            tokens[count] = token;
            usedLengths[count] = (int) (element >>> 32);
        }
        this.free = free;
        used += count;
        if (count < limit) {
            // Not read again: what it says now may be good, and whoever it names would be lost.
            offered(element);
        }
        return count;
    }

    /** Whether an outstanding buffer of that id may have that length; else the queue broke. */
    final boolean offered(long element) {
        int id = (int) element;
        if (id < 0 || id > mask) {
            outOfRange(id);
            return false;
        }
        long state = shadow[(id << SHADOW_SHIFT) + STATE];
        if (state >= 0 || element >>> 32 > (state & BYTES)) {
            notOffered(id, element >>> 32, state);
            return false;
        }
        return true;
    }

    private long outOfRange(int id) {
        breakQueue(
                "the device used descriptor %d, the limit is %d"
                        .formatted(Integer.toUnsignedLong(id), size - 1));
        return NONE;
    }

    private long notOffered(int id, long length, long state) {
        breakQueue(
                state >= 0
                        ? "the device used descriptor %d, which is not outstanding".formatted(id)
                        : "the device wrote %d bytes to the buffer of descriptor %d, the limit is %d"
                                .formatted(length, id, state & BYTES));
        return NONE;
    }
}
