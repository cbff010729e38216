package virtio.ring.queue;

import java.util.Comparator;
import java.util.List;

/**
 * A buffer that an earlier life of a queue had taken, as an inflight region has it. A copy: whoever
 * shares the region may write to it while it is read.
 *
 * @param counter grows with each buffer that was taken
 */
record InflightHead(int head, long counter) {
    /** Heads in the order in which they were taken; the list is sorted so. */
    static int[] inOrder(List<InflightHead> found) {
        found.sort(Comparator.comparingLong(InflightHead::counter));
        return found.stream().mapToInt(InflightHead::head).toArray();
    }

    /** The counter for the next buffer. */
    static long next(List<InflightHead> inOrder) {
        return inOrder.isEmpty() ? 0 : inOrder.getLast().counter + 1;
    }
}
