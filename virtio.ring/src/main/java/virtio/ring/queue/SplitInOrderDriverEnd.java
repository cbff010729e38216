package virtio.ring.queue;

import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;

/**
 * The driver's end of a split virtqueue whose device uses buffers in order (virtio 2.7.9).
 *
 * <p>One used element may stand for a batch: it then names the last buffer, and the ones before it
 * count as written to the full (virtio 2.7.9).
 */
final class SplitInOrderDriverEnd extends SplitDriverEnd {
    /** Whether the used element that was read last stands for buffers that are not got yet. */
    private boolean batch;

    /** That element: id and length of the last buffer. */
    private long last;

    /** Buffers used before that batch. */
    private long first;

    SplitInOrderDriverEnd(Setup setup) throws VirtioException {
        super(setup);
    }

    @Override
    void initialise(CoherentMemory memory) {
        super.initialise(memory);
        batch = false;
    }

    @Override
    public long get() {
        if (used == usedSeen && !more() || broken != null) {
            return NONE;
        }
        return take();
    }

    @Override
    boolean inBatch() {
        return batch;
    }

    /** Finds none either when a batch has no end. */
    @Override
    boolean more() {
        if (batch) {
            breakQueue(
                    "the device used a batch up to descriptor %d of more buffers than the limit, %d"
                            .formatted((int) last, used - first));
            return false;
        }
        return refresh();
    }

    /** The next buffer in order, of those that are known to be used. */
    @Override
    long take() {
        if (!batch) {
            long element = usedElement(used);
            if (!offered(element)) {
                return NONE;
            }
            last = element;
            first = used;
        }
        int id = oldest();
        long state = word(shadow, id, STATE);
        batch = id != (int) last;
        usedLength = (int) (batch ? state : last >>> 32);
        used++;
        release(id, state);
        return word(shadow, id, TOKEN);
    }
}
