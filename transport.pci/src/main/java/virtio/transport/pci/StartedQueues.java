package virtio.transport.pci;

import java.util.Arrays;
import java.util.function.IntPredicate;

/**
 * Which queues of a function are started, where each is notified and which vector stands for which.
 * Replaced, never changed; to look something up allocates nothing.
 *
 * @param notifyOffsets by queue, where to notify it in the notification structure's BAR; -1 for one
 *     that is not started
 * @param byVector the queues that each vector stands for; the pin's come first
 */
record StartedQueues(long[] notifyOffsets, int[][] byVector) {
    /**
     * None.
     *
     * @param vectors how many there are, 1 with the pin
     */
    static StartedQueues none(int vectors) {
        return new StartedQueues(new long[0], new int[vectors][0]);
    }

    /** One more. */
    StartedQueues with(int queue, int vector, long notifyOffset) {
        int known = notifyOffsets.length;
        long[] offsets = Arrays.copyOf(notifyOffsets, Math.max(known, queue + 1));
        Arrays.fill(offsets, Math.min(known, offsets.length), offsets.length, -1);
        offsets[queue] = notifyOffset;
        int[][] more = byVector.clone();
        more[vector] = Arrays.copyOf(more[vector], more[vector].length + 1);
        more[vector][more[vector].length - 1] = queue;
        return new StartedQueues(offsets, more);
    }

    /** Those of them that are kept. */
    StartedQueues only(IntPredicate kept) {
        long[] offsets = notifyOffsets.clone();
        for (int queue = 0; queue < offsets.length; queue++) {
            offsets[queue] = kept.test(queue) ? offsets[queue] : -1;
        }
        int[][] still = new int[byVector.length][];
        for (int vector = 0; vector < still.length; vector++) {
            still[vector] = Arrays.stream(byVector[vector]).filter(kept).toArray();
        }
        return new StartedQueues(offsets, still);
    }

    /** Where a queue is notified; -1 when it is not started. */
    long notifyOffset(int queue) {
        return queue < notifyOffsets.length ? notifyOffsets[queue] : -1;
    }

    /** The queues that a vector stands for. */
    int[] of(int vector) {
        return byVector[vector];
    }
}
