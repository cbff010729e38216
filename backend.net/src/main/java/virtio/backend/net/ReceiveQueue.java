package virtio.backend.net;

import virtio.api.Features;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.atomic.AtomicBoolean;

/** A running receive queue and the frames on the way to it; served by its thread. */
final class ReceiveQueue {
    /** Most buffers of a frame; those of 1526 bytes hold the largest in 44. */
    private static final int MAX_BUFFERS = 128;

    private static final ValueLayout.OfShort LITTLE16 =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(java.nio.ByteOrder.LITTLE_ENDIAN);

    final FrameRing ring = new FrameRing();
    private final DeviceQueue queue;
    private final Notifications.Queue notifications;
    private final boolean mergeable;
    private final boolean reportsHash;
    private final int headerBytes;
    private final AtomicBoolean marked = new AtomicBoolean();
    private final Chain[] chains = new Chain[MAX_BUFFERS];
    private final long[] written = new long[MAX_BUFFERS];

    /** Chains that were taken for the next frame. */
    private int taken;

    private long takenBytes;

    ReceiveQueue(DeviceQueue queue, Notifications.Queue notifications, Features features) {
        this.queue = queue;
        this.notifications = notifications;
        mergeable = features.has(NetFeature.MRG_RXBUF);
        reportsHash = features.has(NetFeature.HASH_REPORT);
        headerBytes = reportsHash ? NetHeader.HASH_BYTES : NetHeader.BYTES;
    }

    /** Whether nobody has asked for the queue to be served yet; whoever is told has to. */
    boolean mark() {
        return marked.compareAndSet(false, true);
    }

    void schedule() {
        queue.schedule();
    }

    /**
     * Hands over what is there as long as the driver has buffers.
     *
     * @return frames dropped, for want of a buffer large enough
     */
    int process() {
        marked.set(false);
        int dropped = deliver();
        notifications.settle();
        return dropped;
    }

    /**
     * Gives back what was taken for a frame that does not fit yet; the queue is being stopped, and
     * a later life of it knows nothing of them. Drivers drop what is shorter than a header.
     */
    void stop() {
        if (taken == 0) {
            return;
        }
        for (int i = 0; i < taken; i++) {
            queue.complete(chains[i], 0);
        }
        taken = 0;
        takenBytes = 0;
        queue.notifyDriver();
    }

    private int deliver() {
        int dropped = 0;
        for (int length = ring.nextLength(); length >= 0; length = ring.nextLength()) {
            long bytes = headerBytes + (long) length;
            while (takenBytes < bytes && taken < MAX_BUFFERS && (mergeable || taken == 0)) {
                if (chains[taken] == null) {
                    chains[taken] = queue.newChain();
                }
                if (!queue.next(chains[taken])) {
                    return dropped;
                }
                written[taken] = chains[taken].writableBytes();
                takenBytes += written[taken++];
            }
            if (takenBytes < bytes) {
                dropped++;
            } else {
                write(bytes);
            }
            ring.remove();
        }
        return dropped;
    }

    private void write(long bytes) {
        MemorySegment from = ring.memory();
        long next = reportsHash ? ring.nextWithHash() : ring.next();
        // How many of the buffers taken the frame needs: a smaller one before may have needed less.
        int count = 0;
        for (long room = 0; room < bytes; room += written[count++]) {}
        from.set(LITTLE16, next + NetHeader.NUM_BUFFERS, (short) count);
        long done = 0;
        for (int i = 0; i < count; i++) {
            long part = Math.min(bytes - done, written[i]);
            chains[i].write(0, from, next + done, part);
            written[i] = part;
            done += part;
        }
        if (count == 1) {
            queue.complete(chains[0], written[0]);
        } else {
            queue.complete(chains, written, count);
        }
        notifications.used();
        // What was taken for a larger frame, which was dropped, is for the next ones.
        taken -= count;
        takenBytes = 0;
        for (int i = 0; i < taken; i++) {
            Chain used = chains[i];
            chains[i] = chains[i + count];
            chains[i + count] = used;
            written[i] = chains[i].writableBytes();
            takenBytes += written[i];
        }
    }
}
