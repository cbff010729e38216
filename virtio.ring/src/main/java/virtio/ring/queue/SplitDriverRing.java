package virtio.ring.queue;

import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.status.QueueSnapshot;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * Where the driver's end of a split virtqueue is in its ring, and what both ends say about
 * notifications (virtio 2.7.7 and 2.7.10).
 */
abstract class SplitDriverRing extends DriverEnd {
    private static final VarHandle CHECKED16 =
            ValueLayout.JAVA_SHORT.withOrder(ByteOrder.LITTLE_ENDIAN).varHandle();

    /** Used ring on lines of its own: the device writes it while the driver writes the rest. */
    private static final long LINE_BYTES = 128;

    // Indices count on for ever; the ring has their low 16 bits.
    private long added;
    private long published;
    long used;

    /** Up to where the device has used buffers, as seen last. */
    long usedSeen;

    /** A {@code char}, so that an index that it was applied to is known to be small. */
    char mask;

    // As RingMemory.keep has them.
    private long descriptors;
    private long available;
    private long usedRing;

    /** What {@code used_event} or the available ring's flags say now. */
    private int usedEvent;

    private boolean suppressed;

    private long addedBefore;
    private long usedBefore;
    private QueueLayout layout;

    SplitDriverRing(Setup setup) throws VirtioException {
        super(setup);
    }

    @Override
    public QueueLayout layout() {
        return layout;
    }

    private static long usedOffset(int size) {
        long end = SplitRing.descriptorBytes(size) + SplitRing.availableBytes(size);
        return (end + LINE_BYTES - 1) & -LINE_BYTES;
    }

    final long descriptors() {
        return RingMemory.address(descriptors);
    }

    private long available() {
        return RingMemory.address(available);
    }

    final long usedRing() {
        return RingMemory.address(usedRing);
    }

    @Override
    long ringBytes(int size) {
        return usedOffset(size) + SplitRing.usedBytes(size);
    }

    @Override
    void checkSize(int size) {
        if (size < 1 || size > SplitRing.MAX_SIZE || Integer.bitCount(size) != 1) {
            throw new IllegalArgumentException(
                    "%s: %d descriptors, a split queue has a power of two from 1 to %d"
                            .formatted(this, size, SplitRing.MAX_SIZE));
        }
    }

    @Override
    void initialise(CoherentMemory memory) {
        added = 0;
        published = 0;
        used = 0;
        usedSeen = 0;
        mask = (char) (size - 1);
        long availableOffset = SplitRing.descriptorBytes(size);
        long base = memory.segment().address();
        descriptors = RingMemory.keep(base);
        available = RingMemory.keep(base + availableOffset);
        usedRing = RingMemory.keep(base + usedOffset(size));
        layout =
                new QueueLayout(
                        size,
                        memory.mapHandle(),
                        memory.mapHandle() + availableOffset,
                        memory.mapHandle() + usedOffset(size));
        suppressed = false;
        usedEvent = 0;
        if (!callbacks) {
            if (eventIdx) {
                usedEvent = 0xFFFF;
                RingMemory.setOpaque16(available() + SplitRing.usedEvent(size), usedEvent);
            } else {
                suppressed = true;
                RingMemory.setOpaque16(available() + SplitRing.FLAGS, SplitRing.NO_INTERRUPT);
            }
        }
    }

    /**
     * The chain that begins there is the next available one but so many; told by the kick, once
     * {@link #passAvailable} has counted it.
     */
    final void makeAvailable(int head, int behind) {
        int at = (int) added + behind & mask;
        RingMemory.set16(available() + SplitRing.RING + 2L * at, head);
    }

    final void passAvailable(int chains) {
        added += chains;
    }

    @Override
    public boolean kickPrepare() {
        long old = published;
        long now = added;
        if (now == old || broken != null) {
            return false;
        }
        if (suppressed == callbacks) {
            syncCallbacks();
        }
        RingMemory.setRelease16(available() + SplitRing.IDX, (int) now);
        published = now;
        // The index must be visible before the wish to be notified is read (DRV-SPLIT-026).
        VarHandle.fullFence();
        if (eventIdx) {
            int event = RingMemory.getOpaque16(usedRing() + SplitRing.availEvent(size));
            return SplitRing.needEvent(event, (int) now, (int) old);
        }
        return (RingMemory.getOpaque16(usedRing() + SplitRing.FLAGS) & SplitRing.NO_NOTIFY) == 0;
    }

    @Override
    int notificationOffset() {
        return (int) published & 0xFFFF;
    }

    /** Id and length of the used buffer at an index. */
    final long usedElement(long at) {
        return RingMemory.get64(usedRing() + SplitRing.RING + 8L * ((int) at & mask));
    }

    /** Looks for used buffers; false when there are none. */
    final boolean refresh() {
        if (broken != null) {
            return false;
        }
        syncCallbacks();
        int ready = RingMemory.getAcquire16(usedRing() + SplitRing.IDX) - (int) used & 0xFFFF;
        if (ready > published - used) {
            breakQueue(
                    "the used index jumped by %d, the limit is %d outstanding"
                            .formatted(ready, published - used));
            return false;
        }
        usedSeen = used + ready;
        return ready != 0;
    }

    /** Tells the device what disableCallback wished, or where the next interrupt is due. */
    private void syncCallbacks() {
        if (!eventIdx) {
            if (suppressed == callbacks) {
                suppressed = !callbacks;
                RingMemory.setOpaque16(
                        available() + SplitRing.FLAGS, suppressed ? SplitRing.NO_INTERRUPT : 0);
            }
        } else if (callbacks && (short) (usedEvent - (int) used) < 0) {
            // Passed already: without a new one no interrupt would follow when this finds nothing.
            setUsedEvent((int) used);
            VarHandle.fullFence();
        }
    }

    private void setUsedEvent(int event) {
        usedEvent = event & 0xFFFF;
        RingMemory.setOpaque16(available() + SplitRing.usedEvent(size), usedEvent);
    }

    @Override
    public int enableCallbackPrepare() {
        enable((int) used);
        return (int) used & 0xFFFF;
    }

    @Override
    public boolean poll(int prepared) {
        if (broken != null) {
            return false;
        }
        return RingMemory.getAcquire16(usedRing() + SplitRing.IDX) != prepared;
    }

    @Override
    public boolean enableCallbackDelayed() {
        int most = (int) (published - used) * 3 / 4;
        enable((int) used + most);
        if (broken != null) {
            return true;
        }
        int ready = RingMemory.getAcquire16(usedRing() + SplitRing.IDX) - (int) used & 0xFFFF;
        return ready <= most;
    }

    private void enable(int event) {
        if (broken != null) {
            return;
        }
        callbacks = true;
        if (eventIdx) {
            setUsedEvent(event);
        } else {
            suppressed = false;
            RingMemory.setOpaque16(available() + SplitRing.FLAGS, 0);
        }
        // The wish to be called must be visible before used buffers are looked for.
        VarHandle.fullFence();
    }

    @Override
    boolean moreUsed(MemorySegment ring) {
        QueueLayout where = layout;
        long at = where.deviceArea() - where.descriptorArea() + SplitRing.IDX;
        return (short) CHECKED16.getAcquire(ring, at) != (short) used;
    }

    @Override
    void carryCounts() {
        addedBefore += added;
        usedBefore += used;
    }

    @Override
    QueueSnapshot snapshot(long interrupts, String broken) {
        return new QueueSnapshot(
                index,
                name(),
                "split",
                size,
                free,
                (int) added & 0xFFFF,
                (int) used & 0xFFFF,
                addedBefore + added,
                usedBefore + used,
                notifications,
                interrupts,
                broken);
    }
}
