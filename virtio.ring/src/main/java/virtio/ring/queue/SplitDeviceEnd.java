package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Chain;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;

import java.lang.invoke.VarHandle;

/** The device's end of a split virtqueue (virtio 2.7). */
final class SplitDeviceEnd extends DeviceEnd {
    /** A {@code char}, so that an index that it was applied to is known to be small. */
    private final char mask;

    // As RingMemory.keep has them.
    private final long descriptors;
    private final long available;
    private final long usedRing;
    private final SplitInflight inflight;

    // Indices count on; the rings have their low 16 bits.
    private int nextAvailable;
    private int availableSeen;
    private int used;
    private int notified;

    /** The driver is not told of used buffers yet, which begin there. */
    private boolean inBurst;

    private int burstFrom;

    /** Nothing is known about what the driver was told by an earlier life of the queue. */
    private boolean notifyAnyway;

    SplitDeviceEnd(
            int index, QueueLayout layout, Features features, DriverMemory memory, Export export)
            throws VirtioException {
        super(index, layout, features, memory, export);
        if (size < 1 || size > MAX_SIZE || Integer.bitCount(size) != 1) {
            throw new VirtioException(
                    "queue %d: %d descriptors, a split queue has a power of two from 1 to %d"
                            .formatted(index, size, MAX_SIZE));
        }
        mask = (char) (size - 1);
        descriptors =
                area(
                        "descriptor table",
                        layout.descriptorArea(),
                        SplitRing.descriptorBytes(size),
                        SplitRing.DESCRIPTOR_ALIGNMENT,
                        false);
        available =
                area(
                        "available ring",
                        layout.driverArea(),
                        SplitRing.availableBytes(size),
                        SplitRing.AVAILABLE_ALIGNMENT,
                        false);
        usedRing =
                area(
                        "used ring",
                        layout.deviceArea(),
                        SplitRing.usedBytes(size),
                        SplitRing.USED_ALIGNMENT,
                        true);
        used = RingMemory.getAcquire16(usedRing() + SplitRing.IDX);
        nextAvailable = layout.nextAvailable() & 0xFFFF;
        if (layout.inflight() != null) {
            inflight = new SplitInflight(index, layout.inflight(), size, used);
            nextAvailable = used + inflight.recovered();
        } else {
            inflight = null;
        }
        availableSeen = nextAvailable;
        notified = used;
        notifyAnyway = used != 0 || inflight != null && inflight.revived();
        RingMemory.setOpaque16(usedRing() + SplitRing.FLAGS, 0);
    }

    private long descriptors() {
        return RingMemory.address(descriptors);
    }

    private long available() {
        return RingMemory.address(available);
    }

    private long usedRing() {
        return RingMemory.address(usedRing);
    }

    @Override
    int nextAvailable() {
        return nextAvailable & 0xFFFF;
    }

    @Override
    public boolean next(Chain into) {
        RingChain chain = open(into);
        int takes = takes();
        if (takes != PLAIN) {
            return takes != NOTHING && takeTracked(chain);
        }
        int head = nextHead();
        return head >= 0 && take(chain, head) && (turns == null || takeTurn(chain));
    }

    @Override
    public int next(Chain[] into, int count) {
        if (takes() != PLAIN) {
            return super.next(into, count);
        }
        if (nextAvailable == availableSeen && !refresh()) {
            return 0;
        }
        int limit = Math.min(count, availableSeen - nextAvailable);
        int taken = 0;
        while (taken < limit) {
            taken = takeRun(into, taken, limit);
            if (taken < limit) {
                // Of several descriptors or pieces, or not acceptable.
                RingChain chain = open(into[taken]);
                int head = nextHead();
                if (head < 0 || !take(chain, head) || turns != null && !takeTurn(chain)) {
                    break;
                }
                taken++;
            }
        }
        return taken;
    }

    /**
     * Takes buffers of one descriptor each, as long as all is well.
     *
     * @param from how many were taken before
     * @return how many are taken then
     */
    private int takeRun(Chain[] into, int from, int limit) {
        int first = nextAvailable - from;
        long ring = available() + SplitRing.RING;
        int taken = from;
        while (taken < limit) {
            RingChain chain = (RingChain) into[taken];
            int head = RingMemory.get16(ring + 2L * (first + taken & mask));
            if (chain.key != key
                    || head > mask
                    || !takeOne(chain, head)
                    || turns != null && !takeTurn(chain)) {
                break;
            }
            taken++;
        }
        nextAvailable = first + taken;
        return taken;
    }

    /** Takes a buffer of one descriptor in one piece of memory; false when it is another one. */
    private boolean takeOne(RingChain chain, int head) {
        long descriptor = descriptors() + Descriptor.offset((char) head);
        long handle = RingMemory.get64(descriptor);
        long word = RingMemory.get64(descriptor + SplitRing.DESCRIPTOR_WORD);
        return takeOne(chain, head, handle, word);
    }

    private boolean takeOne(RingChain chain, int head, long handle, long word) {
        long length = word & 0xFFFFFFFFL;
        int flags = (int) (word >>> 32);
        if ((flags & (Descriptor.NEXT | Descriptor.INDIRECT)) != 0 || !sane(handle, length)) {
            return false;
        }
        long address = memory.translate(handle, length, (flags & Descriptor.WRITE) != 0);
        if (address == DriverMemory.FAULT) {
            return false;
        }
        chain.only(PackedRing.word(length, head, flags), address);
        return opened(chain);
    }

    private boolean takeTracked(RingChain chain) {
        int head;
        if (inflight != null && inflight.pending()) {
            head = inflight.resubmit();
        } else {
            head = nextHead();
            if (head >= 0 && inflight != null) {
                inflight.took(head);
            }
        }
        return head >= 0 && take(chain, head) && (turns == null || takeTurn(chain));
    }

    /** The next available descriptor; -1 when there is none, or when the queue broke. */
    private int nextHead() {
        int at = nextAvailable;
        if (at == availableSeen && !refresh()) {
            return -1;
        }
        nextAvailable = at + 1;
        int head = RingMemory.get16(available() + SplitRing.RING + 2L * (at & mask));
        return head <= mask ? head : refuse(head);
    }

    private int refuse(int head) {
        breakQueue("available descriptor %d, the limit is %d".formatted(head, size - 1));
        return -1;
    }

    private boolean take(RingChain chain, int head) {
        long descriptor = descriptors() + Descriptor.offset((char) head);
        long handle = RingMemory.get64(descriptor);
        long word = RingMemory.get64(descriptor + SplitRing.DESCRIPTOR_WORD);
        if (takeOne(chain, head, handle, word)) {
            return true;
        }
        chain.reset(head);
        return walk(chain, handle, word) && opened(chain);
    }

    /** Looks for available buffers; false when there are none. */
    private boolean refresh() {
        int now = RingMemory.getAcquire16(available() + SplitRing.IDX);
        int ready = now - nextAvailable & 0xFFFF;
        if (ready > size) {
            return breakQueue(
                    "the available index jumped by %d, the limit is %d".formatted(ready, size));
        }
        availableSeen = nextAvailable + ready;
        return ready != 0;
    }

    private boolean walk(RingChain chain, long handle, long word) {
        int flags = (int) (word >>> 32) & 0xFFFF;
        for (int count = 1; ; count++) {
            if ((flags & Descriptor.INDIRECT) != 0) {
                return walkTable(chain, handle, word & 0xFFFFFFFFL, flags);
            }
            if (!element(chain, handle, word & 0xFFFFFFFFL, (flags & Descriptor.WRITE) != 0)) {
                return false;
            }
            if ((flags & Descriptor.NEXT) == 0) {
                return true;
            }
            int next = (int) (word >>> 48);
            if (next >= size) {
                return breakQueue("next descriptor %d, the limit is %d".formatted(next, size - 1));
            }
            if (count == size) {
                return breakQueue(
                        "chain of more than %d descriptors, which is the limit".formatted(size));
            }
            long descriptor = descriptors() + Descriptor.offset((char) next);
            handle = RingMemory.get64(descriptor);
            word = RingMemory.get64(descriptor + SplitRing.DESCRIPTOR_WORD);
            flags = (int) (word >>> 32) & 0xFFFF;
        }
    }

    private boolean walkTable(RingChain chain, long table, long bytes, int tableFlags) {
        if ((tableFlags & Descriptor.NEXT) != 0) {
            return breakQueue("a descriptor with both INDIRECT and NEXT");
        }
        if (!table(table, bytes)) {
            return false;
        }
        long entries = bytes / Descriptor.BYTES;
        long whole = memory.translate(table, bytes, false);
        int at = 0;
        for (int count = 1; ; count++) {
            long offset = Descriptor.offset((char) at);
            long descriptor =
                    whole != DriverMemory.FAULT
                            ? whole + offset
                            : memory.translate(table + offset, Descriptor.BYTES, false);
            if (descriptor == DriverMemory.FAULT) {
                return fault(table + offset, Descriptor.BYTES, false);
            }
            long handle = RingMemory.get64(descriptor);
            long word = RingMemory.get64(descriptor + SplitRing.DESCRIPTOR_WORD);
            int flags = (int) (word >>> 32) & 0xFFFF;
            if ((flags & Descriptor.INDIRECT) != 0) {
                return breakQueue("an indirect descriptor within an indirect table");
            }
            if (!element(chain, handle, word & 0xFFFFFFFFL, (flags & Descriptor.WRITE) != 0)) {
                return false;
            }
            if ((flags & Descriptor.NEXT) == 0) {
                return true;
            }
            at = (int) (word >>> 48);
            if (at >= entries) {
                return breakQueue(
                        "next descriptor %d in an indirect table, the limit is %d"
                                .formatted(at, entries - 1));
            }
            if (count == entries) {
                return breakQueue(
                        "indirect chain of more than %d descriptors, which is the limit"
                                .formatted(entries));
            }
        }
    }

    @Override
    public void complete(Chain done, long written) {
        RingChain chain = (RingChain) done;
        close(chain, written);
        long length = Math.min(written, BYTES);
        if (uses() == PLAIN && turns == null) {
            int now = used;
            element(now, chain.id(), length);
            used = now + 1;
            RingMemory.setRelease16(usedRing() + SplitRing.IDX, now + 1);
        } else if (serving()) {
            useTracked(chain, length);
        }
    }

    @Override
    void usePlain(Chain[] chains, long[] written, int count) {
        for (int i = 0; i < count; i++) {
            close((RingChain) chains[i], written[i]);
        }
        int at = used;
        for (int i = 0; i < count; i++) {
            element(at + i, ((RingChain) chains[i]).id(), Math.min(written[i], BYTES));
        }
        used = at + count;
        RingMemory.setRelease16(usedRing() + SplitRing.IDX, at + count);
    }

    private void element(int at, int head, long length) {
        RingMemory.set64(usedRing() + SplitRing.RING + 8L * (at & mask), head | length << 32);
    }

    @Override
    void use(int head, int descriptors, long length) {
        element(used, head, length);
        if (inflight != null) {
            inflight.using(head);
        }
        used++;
        if (inBurst) {
            return;
        }
        RingMemory.setRelease16(usedRing() + SplitRing.IDX, used);
        if (inflight != null) {
            VarHandle.releaseFence();
            inflight.used(head);
            inflight.published(used & 0xFFFF);
        }
    }

    @Override
    void beginBurst() {
        inBurst = true;
        burstFrom = used;
    }

    @Override
    void publish() {
        inBurst = false;
        RingMemory.setRelease16(usedRing() + SplitRing.IDX, used);
        if (inflight != null) {
            VarHandle.releaseFence();
            for (int at = burstFrom; at != used; at++) {
                long element = RingMemory.get64(usedRing() + SplitRing.RING + 8L * (at & mask));
                inflight.used((int) element & mask);
            }
            inflight.published(used & 0xFFFF);
        }
    }

    @Override
    public void notifyDriver() {
        int old = notified;
        int now = used;
        if (now == old && !notifyAnyway || !serving()) {
            return;
        }
        notified = now;
        // The index must be visible before the wish to be interrupted is read.
        VarHandle.fullFence();
        boolean wanted;
        if (eventIdx) {
            int event = RingMemory.getOpaque16(available() + SplitRing.usedEvent(size));
            wanted = notifyAnyway || SplitRing.needEvent(event, now, old);
        } else {
            int flags = RingMemory.getOpaque16(available() + SplitRing.FLAGS);
            wanted = (flags & SplitRing.NO_INTERRUPT) == 0;
        }
        notifyAnyway = false;
        if (wanted) {
            interrupt();
        }
    }

    @Override
    void suppress() {
        if (!eventIdx) {
            RingMemory.setOpaque16(usedRing() + SplitRing.FLAGS, SplitRing.NO_NOTIFY);
        }
        refresh();
    }

    @Override
    boolean awaitNotification() {
        int seen = availableSeen;
        if (eventIdx) {
            RingMemory.setOpaque16(usedRing() + SplitRing.availEvent(size), seen);
        } else {
            RingMemory.setOpaque16(usedRing() + SplitRing.FLAGS, 0);
        }
        // The wish to be notified must be visible before the index is read again.
        VarHandle.fullFence();
        return refresh() && availableSeen != seen;
    }
}
