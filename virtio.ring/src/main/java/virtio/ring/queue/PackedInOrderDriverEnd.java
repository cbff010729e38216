package virtio.ring.queue;

import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;

import java.lang.foreign.MemorySegment;

/**
 * The driver's end of a packed virtqueue whose device uses buffers in order (virtio 2.8.8).
 *
 * <p>One used descriptor may stand for a batch: it then names the last buffer, and the ones before
 * it count as written to the full (virtio 2.8.8).
 */
final class PackedInOrderDriverEnd extends PackedDriverEnd {
    /** Whether the used descriptor that was read last stands for buffers that are not got yet. */
    private boolean batch;

    // The last buffer of that batch.
    private int lastId;
    private int lastLength;

    PackedInOrderDriverEnd(Setup setup) throws VirtioException {
        super(setup);
    }

    @Override
    void initialise(CoherentMemory memory) {
        super.initialise(memory);
        batch = false;
    }

    @Override
    public long get() {
        if (!batch) {
            long word = nextUsed();
            if (word == PackedRing.NOTHING) {
                return NONE;
            }
            long length = length(word);
            if (length < 0) {
                return NONE;
            }
            lastId = PackedRing.id(word);
            lastLength = (int) length;
        } else if (broken != null) {
            return NONE;
        }
        int id = oldest();
        long state = word(shadow, id, STATE);
        batch = id != lastId;
        usedLength = batch ? (int) state : lastLength;
        passBuffer(state);
        release(id, state);
        return word(shadow, id, TOKEN);
    }

    @Override
    boolean inBatch() {
        return batch;
    }

    @Override
    public boolean poll(int prepared) {
        return batch ? broken == null : super.poll(prepared);
    }

    @Override
    public boolean enableCallbackDelayed() {
        return super.enableCallbackDelayed() && !(batch && broken == null);
    }

    @Override
    boolean moreUsed(MemorySegment ring) {
        return batch || super.moreUsed(ring);
    }
}
