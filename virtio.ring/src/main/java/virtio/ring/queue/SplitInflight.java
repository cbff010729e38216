package virtio.ring.queue;

import virtio.api.VirtioException;

import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.ArrayList;
import java.util.List;

/**
 * What a split queue has not completed, in memory that survives this process (vhost-user, "Inflight
 * I/O tracking", split virtqueue).
 *
 * <pre>
 * header       | features u64 | version u16 | desc_num u16 | last_batch_head u16 | used_idx u16 |
 * by head      | inflight u8 | padding u8[5] | next u16 | counter u64 |
 * </pre>
 *
 * A batch is what one store of the used ring's index publishes.
 */
final class SplitInflight {
    private static final int VERSION_1 = 1;

    private static final int VERSION = 8;
    private static final int DESC_NUM = 10;
    private static final int LAST_BATCH_HEAD = 12;
    private static final int USED_IDX = 14;
    private static final int HEADER_BYTES = 16;

    private static final int INFLIGHT = 0;
    private static final int NEXT = 6;
    private static final int COUNTER = 8;
    private static final int STATE_BYTES = 16;

    private final long base;
    private final boolean revived;

    /** Heads to be submitted again, oldest first. */
    private final int[] resubmit;

    private int resubmitted;
    private long counter;

    /**
     * Recovers what an earlier life left, or initialises a fresh region.
     *
     * @param used the used ring's index now
     */
    SplitInflight(int index, MemorySegment region, int size, int used) throws VirtioException {
        long bytes = HEADER_BYTES + (long) STATE_BYTES * size;
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
        int version = RingMemory.get16(base + VERSION);
        revived = version != 0;
        if (!revived) {
            // Who cleared it may have died when no more than the header was cleared.
            for (int head = 0; head < size; head++) {
                RingMemory.set8(state(head) + INFLIGHT, 0);
            }
            RingMemory.set16(base + LAST_BATCH_HEAD, 0);
            RingMemory.set16(base + DESC_NUM, size);
            RingMemory.set16(base + USED_IDX, used);
            RingMemory.setRelease16(base + VERSION, VERSION_1);
            resubmit = new int[0];
            return;
        }
        int descNum = RingMemory.get16(base + DESC_NUM);
        if (version != VERSION_1 || descNum != size) {
            throw new VirtioException(
                    "queue %d: inflight region of version %d for %d descriptors, not %d for %d"
                            .formatted(index, version, descNum, VERSION_1, size));
        }
        finishLastBatch(size, used);
        List<InflightHead> found = new ArrayList<>();
        for (int head = 0; head < size; head++) {
            if (RingMemory.get8(state(head) + INFLIGHT) != 0) {
                found.add(new InflightHead(head, RingMemory.get64(state(head) + COUNTER)));
            }
        }
        resubmit = InflightHead.inOrder(found);
        counter = InflightHead.next(found);
    }

    /** The last life published used buffers and may have died before it noted that here. */
    private void finishLastBatch(int size, int used) {
        int batch = used - RingMemory.get16(base + USED_IDX) & 0xFFFF;
        int head = RingMemory.get16(base + LAST_BATCH_HEAD);
        for (int i = 0; i < Math.min(batch, size) && head < size; i++) {
            RingMemory.set8(state(head) + INFLIGHT, 0);
            head = RingMemory.get16(state(head) + NEXT);
        }
        RingMemory.set16(base + USED_IDX, used);
    }

    private long state(int head) {
        return base + HEADER_BYTES + (long) STATE_BYTES * head;
    }

    /** Whether there was an earlier life. */
    boolean revived() {
        return revived;
    }

    int recovered() {
        return resubmit.length;
    }

    /** Whether heads wait to be submitted again. */
    boolean pending() {
        return resubmitted < resubmit.length;
    }

    int resubmit() {
        return resubmit[resubmitted++];
    }

    /** A head was taken from the available ring. */
    void took(int head) {
        long state = state(head);
        RingMemory.set64(state + COUNTER, counter++);
        VarHandle.releaseFence();
        RingMemory.set8(state + INFLIGHT, 1);
    }

    /** A head is about to be published in the used ring. */
    void using(int head) {
        RingMemory.set16(state(head) + NEXT, RingMemory.get16(base + LAST_BATCH_HEAD));
        RingMemory.set16(base + LAST_BATCH_HEAD, head);
    }

    /** One of those that the used ring's index now covers; {@link #published} comes after all. */
    void used(int head) {
        RingMemory.set8(state(head) + INFLIGHT, 0);
    }

    /**
     * All of them are noted, and the used ring's index is this: only now, as a later life goes
     * through the batch as long as the index here is another one.
     */
    void published(int used) {
        VarHandle.releaseFence();
        RingMemory.set16(base + USED_IDX, used);
    }
}
