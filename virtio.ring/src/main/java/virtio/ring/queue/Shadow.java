package virtio.ring.queue;

import virtio.api.ScatterList;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;

import java.lang.foreign.MemorySegment;

/**
 * What the driver keeps of each descriptor, where the device cannot write: chains, handles, lengths
 * and which descriptors are free.
 */
abstract class Shadow extends Padding {
    /*
     * What the driver keeps by descriptor id, four words each, in one array for the sake of one
     * cache line:
     *
     * STATE    of a head that the device holds: HELD | MAPPED | count - 1 | next | writable bytes
     *          of the rest of a chain: next
     *          of a free one: anything without HELD
     * TOKEN    of a head
     * HANDLE   where its head is MAPPED
     * ELEMENT  where its head is MAPPED: MAPPED | FROM_DEVICE | length
     */
    static final int STATE = 0;
    static final int TOKEN = 1;
    static final int HANDLE = 2;
    static final int ELEMENT = 3;
    static final int SHADOW_SHIFT = 2;

    /** Sign bit: exposed to the device and not got back. */
    static final long HELD = 1L << 63;

    /** The core mapped it, or some of its elements, and has to unmap. */
    static final long MAPPED = 1L << 62;

    /** The device writes the element. */
    static final long FROM_DEVICE = 1L << 61;

    /** 15 bits: descriptors of the chain, less one. */
    static final int COUNT_SHIFT = 47;

    /** In the state of a buffer of more than one descriptor, some of these are set. */
    static final long CHAINED = 0x7FFFL << COUNT_SHIFT;

    /** 15 bits: the next descriptor. */
    static final int NEXT_SHIFT = 32;

    /** Bytes that the device may write, 2^32 counting as one less: no used length can say more. */
    static final long BYTES = 0xFFFFFFFFL;

    private final boolean identity;
    final MapOps ops;
    final MapToken mapToken;
    final IndirectTables indirect;
    final boolean inOrder;

    int size;
    int free;

    /**
     * The first {@link #free} are the free descriptors: a stack, since following a list from one
     * free descriptor to the next would make every add wait for the last one's load.
     *
     * <p>In order, descriptors are taken from 0 on and around the end (virtio 2.7.5.1): twice the
     * same numbers downwards, never written, of which those free are the ones from {@link #shift}.
     */
    char[] freeIds;

    /** In order: how far the free descriptors lie from the start of {@link #freeIds}; else 0. */
    int shift;

    /** What is known of each descriptor, see {@link #STATE}. */
    long[] shadow;

    /** By head: its indirect table, or null. */
    IndirectTables.Table[] tables;

    Shadow(DeviceMapping mapping, boolean indirect, boolean inOrder) {
        this.inOrder = inOrder;
        identity = mapping.identity();
        ops = mapping.ops();
        mapToken = mapping.token();
        this.indirect = indirect ? new IndirectTables(mapping) : null;
    }

    /** Starts anew, with all descriptors free. */
    final void forget(int size) {
        this.size = size;
        // As many as a power of two, for the mask.
        shadow = new long[Integer.highestOneBit(2 * size - 1) << SHADOW_SHIFT];
        tables = indirect != null ? new IndirectTables.Table[size] : null;
        freeIds = new char[inOrder ? 2 * size : size];
        for (int i = 0; i < freeIds.length; i++) {
            freeIds[i] = (char) (size - 1 - i % size);
        }
        free = size;
        shift = 0;
    }

    /**
     * What is kept of a descriptor. The mask takes the place of a bounds check: an id that is too
     * large, as a device may use, reads what is not its own and has to be refused.
     */
    static long word(long[] shadow, int id, int word) {
        return shadow[(id << SHADOW_SHIFT | word) & shadow.length - 1];
    }

    static void setWord(long[] shadow, int id, int word, long value) {
        shadow[(id << SHADOW_SHIFT | word) & shadow.length - 1] = value;
    }

    static long link(int next) {
        return (long) next << NEXT_SHIFT;
    }

    static int next(long state) {
        return (int) (state >>> NEXT_SHIFT) & 0x7FFF;
    }

    /** Whether an element is mapped and unmapped by operations: else its handle is known. */
    final boolean mapped(MemorySegment segment) {
        return segment != null && !(identity && segment.isNative());
    }

    /** The handle of an element. MAPPING_ERROR when there is no room. */
    final long map(MemorySegment segment, long offset, long length, boolean write) {
        if (!mapped(segment)) {
            return segment == null ? offset : segment.address() + offset;
        }
        Direction direction = write ? Direction.FROM_DEVICE : Direction.TO_DEVICE;
        long handle = ops.mapPage(mapToken, segment, offset, length, direction, 0);
        return ops.mappingError(mapToken, handle) ? MapOps.MAPPING_ERROR : handle;
    }

    /** Notes how the one element of a buffer is mapped. */
    final void note(int head, long handle, int length, boolean write) {
        setWord(shadow, head, HANDLE, handle);
        setWord(shadow, head, ELEMENT, length | MAPPED | (write ? FROM_DEVICE : 0));
    }

    /**
     * Maps a buffer for its table; false when there is no room, with nothing mapped or taken then.
     */
    final boolean map(ScatterList buffers, IndirectTables.Table table) {
        int count = table.count;
        int outCount = buffers.outCount();
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
                }
                table.handles[done] = handle;
                table.elements[done] = element;
            }
        } finally {
            if (done < count) {
                while (done > 0) {
                    done--;
                    unmap(table.handles[done], table.elements[done]);
                }
                indirect.give(table);
            }
        }
        return done == count;
    }

    final void unmap(long handle, long element) {
        if ((element & MAPPED) != 0) {
            ops.unmapPage(
                    mapToken,
                    handle,
                    element & BYTES,
                    (element & FROM_DEVICE) != 0 ? Direction.FROM_DEVICE : Direction.TO_DEVICE,
                    0);
        }
    }

    /** Takes a buffer back from the device: unmaps it and frees its descriptors. */
    final void release(int head, long state) {
        if ((state & CHAINED) == 0 && ((state & MAPPED) == 0 || unmapOne(head))) {
            setWord(shadow, head, STATE, 0);
            if (inOrder) {
                passOn(1);
            } else {
                freeIds[free++] = (char) head;
            }
        } else {
            releaseChain(head, state);
        }
    }

    /** Unmaps the one element of a buffer; false when it is a table. */
    final boolean unmapOne(int head) {
        if (tables != null && tables[head] != null) {
            return false;
        }
        unmap(word(shadow, head, HANDLE), word(shadow, head, ELEMENT));
        return true;
    }

    /** Whether the device holds a buffer of one descriptor, which needs no unmapping. */
    static boolean plain(long state) {
        return state >>> COUNT_SHIFT == HELD >>> COUNT_SHIFT;
    }

    /** So many descriptors are free, of which the ids are noted already. */
    final void pass(int count) {
        if (inOrder) {
            passOn(count);
        } else {
            free += count;
        }
    }

    private void passOn(int count) {
        free += count;
        shift -= count;
        if (shift < 0) {
            shift += size;
        }
    }

    /** Descriptors of the ring that a buffer of that state takes. */
    static int count(long state) {
        return (int) (state >>> COUNT_SHIFT & 0x7FFF) + 1;
    }

    /**
     * In order: the oldest descriptor that is not free, which is where the oldest buffer begins.
     */
    final int oldest() {
        return shift == 0 ? 0 : size - shift;
    }

    private void releaseChain(int head, long headState) {
        setWord(shadow, head, STATE, 0);
        IndirectTables.Table table = tables == null ? null : tables[head];
        boolean unmap = table == null && (headState & MAPPED) != 0;
        if (table != null) {
            tables[head] = null;
            for (int i = 0; i < table.count; i++) {
                unmap(table.handles[i], table.elements[i]);
            }
            indirect.give(table);
        }
        int count = count(headState);
        // Upside down, so that the same chain comes off the stack again.
        int top = free + count;
        if (inOrder) {
            passOn(count);
        } else {
            free = top;
        }
        int id = head;
        long state = headState;
        for (int i = 1; ; i++) {
            if (unmap) {
                unmap(word(shadow, id, HANDLE), word(shadow, id, ELEMENT));
            }
            if (!inOrder) {
                freeIds[top - i] = (char) id;
            }
            if (i == count) {
                return;
            }
            id = next(state);
            state = word(shadow, id, STATE);
        }
    }
}
