package virtio.bench;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.ring.queue.DriverEnd;

/**
 * How a ring is driven.
 *
 * @param layout one of {@link #LAYOUTS}
 * @param workload one of {@link #WORKLOADS}
 */
record RingWay(String layout, String workload) {
    static final String[] LAYOUTS = {"split", "packed"};

    /** What {@link #features}, batches and checks follow from. */
    static final String[] WORKLOADS = {"poll", "event", "burst", "inorder"};

    /** Descriptors of every ring. */
    static final int SIZE = 256;

    // As in ring_twin.c.
    private static final int PACKED = 1;
    private static final int EVENT = 2;
    private static final int BURST = 4;
    private static final int IN_ORDER = 8;

    boolean packed() {
        return layout.equals("packed");
    }

    /** Each end looks after every buffer whether the other one wants to be notified. */
    boolean event() {
        return workload.equals("event");
    }

    /** Used buffers are got many at a time. */
    boolean burst() {
        return workload.equals("burst") || inOrder();
    }

    boolean inOrder() {
        return workload.equals("inorder");
    }

    /** Whether the platform's ring can be driven so. */
    boolean known() {
        return !inOrder() || DriverEnd.FEATURES.has(Feature.IN_ORDER);
    }

    /** Whether Linux's ring benchmark has it: split, and neither bursts nor in order. */
    boolean linux() {
        return !packed() && !burst();
    }

    /** For the twin in C. */
    int bits() {
        return (packed() ? PACKED : 0)
                | (event() ? EVENT : 0)
                | (burst() ? BURST : 0)
                | (inOrder() ? IN_ORDER : 0);
    }

    Features features() {
        Features features = Features.of(Feature.VERSION_1);
        features = packed() ? features.with(Feature.RING_PACKED) : features;
        features = event() ? features.with(Feature.EVENT_IDX) : features;
        return inOrder() ? features.with(Feature.IN_ORDER) : features;
    }

    /** Below this, Java is slower than it should be: C time to Java time. */
    double target() {
        return workload.equals("poll") ? 1.0 : 0.95;
    }
}
