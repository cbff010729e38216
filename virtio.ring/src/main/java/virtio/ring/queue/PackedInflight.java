package virtio.ring.queue;

import virtio.api.VirtioException;

import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * What a packed queue has not completed, in memory that survives this process (vhost-user,
 * "Inflight I/O tracking", packed virtqueue).
 *
 * <pre>
 * header   | features u64 | version u16 | desc_num u16 | free_head u16 | old_free_head u16 |
 *          | used_idx u16 | old_used_idx u16 | used_wrap u8 | old_used_wrap u8 | padding u8[10] |
 * entry    | inflight u8 | padding u8 | next u16 | last u16 | num u16 | counter u64 |
 *          | id u16 | flags u16 | len u32 | addr u64 |
 * </pre>
 *
 * A buffer's descriptors are copied to a list of entries, since the ring has room for what was used
 * only. The free entries are kept here too, and written there.
 */
final class PackedInflight {
    private static final int VERSION_1 = 1;

    private static final int VERSION = 8;
    private static final int DESC_NUM = 10;
    private static final int FREE_HEAD = 12;
    private static final int OLD_FREE_HEAD = 14;
    private static final int USED_IDX = 16;
    private static final int OLD_USED_IDX = 18;
    private static final int USED_WRAP = 20;
    private static final int OLD_USED_WRAP = 21;
    private static final int HEADER_BYTES = 32;

    private static final int INFLIGHT = 0;
    private static final int NEXT = 2;
    private static final int LAST = 4;
    private static final int NUM = 6;
    private static final int COUNTER = 8;
    private static final int ID = 16;
    private static final int FLAGS = 18;
    private static final int LEN = 20;
    private static final int ADDR = 24;
    private static final int ENTRY_BYTES = 32;

    private final long base;
    private final int size;
    private final boolean revived;

    /** By entry, whether free or in a list: the next one; {@link #size} for none. */
    private final int[] next;

    /** By first entry of a buffer in flight: its descriptors, else 0. */
    private final int[] nums;

    /** By first entry: the last one. */
    private final int[] lasts;

    /** By buffer id: the first entry. */
    private int[] heads;

    private int freeHead;
    private int free;

    /** First entries to be submitted again, oldest first. */
    private int[] resubmit = new int[0];

    private int resubmitted;
    private int recovered;
    private long counter;

    private int usedSlot;
    private boolean usedWrap;

    // Before the batch that is about to be published, of these first entries.
    private int oldSlot;
    private boolean oldWrap;
    private final int[] batch;
    private int batched;

    /** The list that is being made: entries so far, and the one for its next descriptor. */
    private int listed;

    private int listEnd;
    private int listNext;

    /**
     * Recovers what an earlier life left, or initialises a fresh region.
     *
     * @param ring the address of the descriptor ring
     * @param used where used descriptors go on, in a fresh region
     */
    PackedInflight(int index, MemorySegment region, int size, long ring, long used)
            throws VirtioException {
        long bytes = HEADER_BYTES + (long) ENTRY_BYTES * size;
        if (!region.isNative() || region.byteSize() < bytes) {
            throw new VirtioException(
                    "queue %d: inflight region of %d bytes, %d descriptors need %d shared ones"
                            .formatted(index, region.byteSize(), size, bytes));
        }
        if (region.address() % 8 != 0) {
            throw new VirtioException(
                    "queue %d: inflight region at %#x is not aligned to 8 bytes"
                            .formatted(index, region.address()));
        }
        base = region.address();
        this.size = size;
        next = new int[size];
        nums = new int[size];
        lasts = new int[size];
        heads = new int[size];
        batch = new int[size];
        int version = RingMemory.get16(base + VERSION);
        revived = version != 0;
        if (!revived) {
            // Who cleared it may have died when no more than the header was cleared.
            for (int head = 0; head < size; head++) {
                RingMemory.set8(entry(head) + INFLIGHT, 0);
            }
            usedSlot = (int) (used % size);
            usedWrap = (used / size & 1) == 0;
            linkFree();
            noteUsed();
            RingMemory.set16(base + DESC_NUM, size);
            RingMemory.setRelease16(base + VERSION, VERSION_1);
            return;
        }
        int descNum = RingMemory.get16(base + DESC_NUM);
        if (version != VERSION_1 || descNum != size) {
            throw new VirtioException(
                    "queue %d: inflight region of version %d for %d descriptors, not %d for %d"
                            .formatted(index, version, descNum, VERSION_1, size));
        }
        finishLastBatch(index, ring);
        recover(index);
    }

    /**
     * The last life may have died between publishing a used buffer and noting so here: the ring
     * says which of both positions holds.
     */
    private void finishLastBatch(int index, long ring) throws VirtioException {
        int fromSlot = RingMemory.get16(base + OLD_USED_IDX);
        boolean fromWrap = RingMemory.get8(base + OLD_USED_WRAP) != 0;
        usedSlot = RingMemory.get16(base + USED_IDX);
        usedWrap = RingMemory.get8(base + USED_WRAP) != 0;
        if (fromSlot >= size || usedSlot >= size) {
            throw new VirtioException(
                    "queue %d: inflight region used up to descriptor %d, the limit is %d"
                            .formatted(index, Math.max(fromSlot, usedSlot), size - 1));
        }
        freeHead = RingMemory.get16(base + FREE_HEAD);
        long word = RingMemory.get64(ring + (long) fromSlot * Descriptor.BYTES + PackedRing.WORD);
        boolean unused = PackedRing.matches(word, fromWrap ? PackedRing.AVAIL : PackedRing.USED);
        if (unused || usedSlot == fromSlot && usedWrap == fromWrap) {
            takeBack(ring, fromSlot, fromWrap);
            usedSlot = fromSlot;
            usedWrap = fromWrap;
            freeHead = RingMemory.get16(base + OLD_FREE_HEAD);
        }
        int entry = freeHead;
        for (int i = 0; i < size && entry < size; i++) {
            RingMemory.set8(entry(entry) + INFLIGHT, 0);
            entry = RingMemory.get16(entry(entry) + NEXT);
        }
    }

    /**
     * What follows the first descriptor of a burst was written before it, and looks used to a
     * driver that comes by once this life has used the first one.
     */
    private void takeBack(long ring, int fromSlot, boolean fromWrap) {
        int slot = fromSlot;
        boolean wrap = fromWrap;
        for (int i = 0; i < size && (slot != usedSlot || wrap != usedWrap); i++) {
            long at = ring + (long) slot * Descriptor.BYTES + PackedRing.WORD;
            long word = RingMemory.get64(at);
            if (PackedRing.matches(word, wrap ? PackedRing.AVAIL | PackedRing.USED : 0)) {
                RingMemory.set64(at, word ^ (long) PackedRing.USED << PackedRing.FLAGS_SHIFT);
            }
            slot++;
            if (slot == size) {
                slot = 0;
                wrap = !wrap;
            }
        }
    }

    private void recover(int index) throws VirtioException {
        List<InflightHead> found = new ArrayList<>();
        boolean[] taken = new boolean[size];
        for (int head = 0; head < size; head++) {
            if (RingMemory.get8(entry(head) + INFLIGHT) == 0) {
                continue;
            }
            int num = RingMemory.get16(entry(head) + NUM);
            int at = head;
            for (int i = 0; i < num; i++) {
                if (at >= size || taken[at]) {
                    throw new VirtioException(
                            "queue %d: inflight entry %d of %d descriptors goes on at %d, the limit"
                                            .formatted(index, head, num, at)
                                    + " is %d and no entry twice".formatted(size - 1));
                }
                taken[at] = true;
                lasts[head] = at;
                next[at] = RingMemory.get16(entry(at) + NEXT);
                at = next[at];
            }
            if (num == 0) {
                RingMemory.set8(entry(head) + INFLIGHT, 0);
                continue;
            }
            nums[head] = num;
            recovered += num;
            found.add(new InflightHead(head, RingMemory.get64(entry(head) + COUNTER)));
        }
        resubmit = InflightHead.inOrder(found);
        counter = InflightHead.next(found);
        linkFree();
        noteUsed();
    }

    /** Makes a list of all entries that are not in flight. */
    private void linkFree() {
        boolean[] taken = new boolean[size];
        for (int head = 0; head < size; head++) {
            for (int i = 0, at = head; i < nums[head]; i++, at = next[at]) {
                taken[at] = true;
            }
        }
        freeHead = size;
        free = 0;
        for (int at = size - 1; at >= 0; at--) {
            if (!taken[at]) {
                next[at] = freeHead;
                RingMemory.set16(entry(at) + NEXT, freeHead);
                freeHead = at;
                free++;
            }
        }
        listNext = freeHead;
    }

    private long entry(int at) {
        return base + HEADER_BYTES + (long) ENTRY_BYTES * at;
    }

    /** Whether there was an earlier life. */
    boolean revived() {
        return revived;
    }

    /** Where used descriptors go on, as a count. */
    long used() {
        return usedSlot + (usedWrap ? 0 : size);
    }

    /** Descriptors in flight that were found. */
    int recovered() {
        return recovered;
    }

    /** Whether buffers wait to be submitted again. */
    boolean pending() {
        return resubmitted < resubmit.length;
    }

    /** The first entry of the next one. */
    int resubmit() {
        return resubmit[resubmitted++];
    }

    int num(int head) {
        return nums[head];
    }

    /** The entry behind one of a buffer that is submitted again. */
    int following(int at) {
        return next[at];
    }

    long handle(int at) {
        return RingMemory.get64(entry(at) + ADDR);
    }

    /** As in the ring: length, id and flags. */
    long word(int at) {
        long entry = entry(at);
        return RingMemory.get32(entry + LEN) & 0xFFFFFFFFL
                | (long) RingMemory.get16(entry + ID) << PackedRing.ID_SHIFT
                | (long) RingMemory.get16(entry + FLAGS) << PackedRing.FLAGS_SHIFT;
    }

    /** Copies a descriptor of the list that is being taken; false when there is no room. */
    boolean copy(long handle, long word) {
        if (listed == free) {
            return false;
        }
        long entry = entry(listNext);
        RingMemory.set64(entry + ADDR, handle);
        long id = word >>> PackedRing.ID_SHIFT & 0xFFFF;
        RingMemory.set64(entry + ID, id | word >>> PackedRing.FLAGS_SHIFT << 16 | word << 32);
        listEnd = listNext;
        listNext = next[listNext];
        listed++;
        return true;
    }

    /** The list is complete: a buffer of that id was taken. */
    void took(int id) {
        int head = freeHead;
        own(id, head);
        nums[head] = listed;
        lasts[head] = listEnd;
        freeHead = listNext;
        free -= listed;
        long entry = entry(head);
        RingMemory.set16(entry + LAST, listEnd);
        RingMemory.set16(entry + NUM, listed);
        RingMemory.set64(entry + COUNTER, counter++);
        listed = 0;
        VarHandle.releaseFence();
        RingMemory.set8(entry + INFLIGHT, 1);
        RingMemory.set16(base + FREE_HEAD, freeHead);
        VarHandle.releaseFence();
        RingMemory.set16(base + OLD_FREE_HEAD, freeHead);
    }

    /** The buffer that begins with that entry has that id. */
    void own(int id, int head) {
        if (id >= heads.length) {
            // Drivers number their buffers from 0; one that does not may.
            heads = Arrays.copyOf(heads, 1 << 16);
        }
        heads[id] = head;
    }

    /** A buffer is about to be published, with those before it since {@link #published}. */
    void using(int id, int descriptors) {
        int head = heads[id];
        if (nums[head] != 0) {
            int last = lasts[head];
            RingMemory.set16(entry(last) + NEXT, freeHead);
            next[last] = freeHead;
            freeHead = head;
            listNext = head;
            free += nums[head];
            nums[head] = 0;
            batch[batched++] = head;
            RingMemory.set16(base + FREE_HEAD, head);
        }
        usedSlot += descriptors;
        if (usedSlot >= size) {
            usedSlot -= size;
            usedWrap = !usedWrap;
        }
        setUsed();
    }

    /** They are published. */
    void published() {
        VarHandle.releaseFence();
        while (batched > 0) {
            RingMemory.set8(entry(batch[--batched]) + INFLIGHT, 0);
        }
        VarHandle.releaseFence();
        noteUsed();
    }

    private void noteUsed() {
        RingMemory.setOpaque32(base + FREE_HEAD, freeHead | freeHead << 16);
        oldSlot = usedSlot;
        oldWrap = usedWrap;
        setUsed();
    }

    /** Both positions at once: a death in between would leave a slot with another lap's counter. */
    private void setUsed() {
        RingMemory.setRelease64(
                base + USED_IDX,
                usedSlot
                        | (long) oldSlot << 16
                        | (usedWrap ? 1L << 32 : 0)
                        | (oldWrap ? 1L << 40 : 0));
    }
}
