package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Chain;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;

import java.lang.invoke.VarHandle;

/** The device's end of a packed virtqueue (virtio 2.8). */
final class PackedDeviceEnd extends DeviceEnd {
    private final long ring;
    private final long driverEvent;
    private final long deviceEvent;
    private final PackedInflight inflight;

    // Where the next available descriptor is expected, its flags, and descriptors so far.
    private int availableSlot;
    private int availableFlags;
    private long available;

    /** Descriptors that were seen to be available, taken or not. */
    private long seen;

    // Where the next used descriptor goes, its flags, and descriptors so far.
    private int usedSlot;
    private int usedFlags;
    private long used;

    private long notified;

    /** Nothing is known about what the driver was told by an earlier life of the queue. */
    private boolean notifyAnyway;

    /** The first of the used buffers of which the driver is not told yet; its word comes last. */
    private boolean holding;

    private long heldAt;
    private long heldWord;

    PackedDeviceEnd(
            int index, QueueLayout layout, Features features, DriverMemory memory, Export export)
            throws VirtioException {
        super(index, layout, features, memory, export);
        if (size < 1 || size > MAX_SIZE) {
            throw new VirtioException(
                    "queue %d: %d descriptors, a packed queue has 1 to %d"
                            .formatted(index, size, MAX_SIZE));
        }
        ring =
                area(
                        "descriptor ring",
                        layout.descriptorArea(),
                        (long) Descriptor.BYTES * size,
                        PackedRing.DESCRIPTOR_ALIGNMENT,
                        true);
        driverEvent =
                area(
                        "driver event suppression",
                        layout.driverArea(),
                        PackedRing.EVENT_BYTES,
                        PackedRing.EVENT_ALIGNMENT,
                        false);
        deviceEvent =
                area(
                        "device event suppression",
                        layout.deviceArea(),
                        PackedRing.EVENT_BYTES,
                        PackedRing.EVENT_ALIGNMENT,
                        true);
        locate(layout.nextAvailable());
        if (layout.inflight() != null) {
            inflight = new PackedInflight(index, layout.inflight(), size, ring, used);
            used = inflight.used();
            available = used + inflight.recovered();
        } else {
            inflight = null;
        }
        seen = available;
        notified = used;
        notifyAnyway = used != 0;
        availableSlot = (int) (available % size);
        usedSlot = (int) (used % size);
        availableFlags = PackedRing.availableFlags(available, size);
        usedFlags = PackedRing.usedFlags(used, size);
        askForNotification();
    }

    /**
     * Finds where an earlier life's {@link #nextAvailable} was.
     *
     * <p>0 is a fresh queue, but also one that both ends left at the start of an odd lap: then the
     * first descriptor was used in the lap before, which in a fresh ring it was not.
     */
    private void locate(int position) throws VirtioException {
        boolean fresh =
                position == 0
                        && ((int)
                                                (RingMemory.get64(ring + PackedRing.WORD)
                                                        >>> PackedRing.FLAGS_SHIFT)
                                        & PackedRing.USED)
                                == 0;
        available = fresh ? 0 : count(position & 0xFFFF);
        used = fresh ? 0 : count(position >>> 16);
        if (used > available) {
            // Available has begun a lap with wrap counter 1 while used is still in the one before.
            available += 2L * size;
        }
    }

    private long count(int offsetAndWrap) throws VirtioException {
        int slot = offsetAndWrap & 0x7FFF;
        if (slot >= size) {
            throw new VirtioException(
                    "queue %d: goes on from descriptor %d, the limit is %d"
                            .formatted(index, slot, size - 1));
        }
        return slot + (offsetAndWrap >>> 15 == 0 ? size : 0);
    }

    @Override
    int nextAvailable() {
        return PackedRing.offsetAndWrap(available, size)
                | PackedRing.offsetAndWrap(used, size) << 16;
    }

    @Override
    public boolean next(Chain into) {
        RingChain chain = open(into);
        return takes() && take(chain) && (turns == null || takeTurn(chain));
    }

    private boolean take(RingChain chain) {
        if (inflight != null && inflight.pending()) {
            return resubmit(chain, inflight.resubmit());
        }
        long descriptor = ring + (long) availableSlot * Descriptor.BYTES;
        long word = RingMemory.getAcquire64(descriptor + PackedRing.WORD);
        if (!PackedRing.matches(word, availableFlags)) {
            return false;
        }
        long handle = RingMemory.get64(descriptor);
        long length = word & 0xFFFFFFFFL;
        int flags = (int) (word >>> PackedRing.FLAGS_SHIFT);
        if ((flags & (Descriptor.NEXT | Descriptor.INDIRECT)) == 0 && sane(handle, length)) {
            boolean write = (flags & Descriptor.WRITE) != 0;
            long address = memory.translate(handle, length, write);
            if (address != DriverMemory.FAULT) {
                chain.only(id(word), address, length, write);
                chain.descriptors = 1;
                advance();
                return inflight == null || track(chain, handle, word);
            }
        }
        chain.reset(id(word));
        chain.descriptors = 1;
        chain.open = walk(chain, handle, word);
        if (chain.open && inflight != null) {
            inflight.took(chain.id);
        }
        return chain.open;
    }

    private boolean track(RingChain chain, long handle, long word) {
        chain.open = note(handle, word);
        if (chain.open) {
            inflight.took(chain.id);
        }
        return chain.open;
    }

    private boolean note(long handle, long word) {
        return inflight.copy(handle, word)
                || breakQueue(
                        "more descriptors outstanding than %d, which is the limit".formatted(size));
    }

    /** Takes a buffer that an earlier life had taken; the ring may not have it any more. */
    private boolean resubmit(RingChain chain, int head) {
        chain.reset(0);
        chain.descriptors = inflight.num(head);
        for (int i = 0, at = head; i < chain.descriptors; i++, at = inflight.following(at)) {
            long handle = inflight.handle(at);
            long word = inflight.word(at);
            int flags = (int) (word >>> PackedRing.FLAGS_SHIFT);
            chain.id = id(word);
            boolean good =
                    (flags & Descriptor.INDIRECT) != 0
                            ? alone(chain.descriptors == 1)
                                    && walkTable(chain, handle, word & 0xFFFFFFFFL)
                            : element(
                                    chain,
                                    handle,
                                    word & 0xFFFFFFFFL,
                                    (flags & Descriptor.WRITE) != 0);
            if (!good) {
                return false;
            }
        }
        inflight.own(chain.id, head);
        chain.open = true;
        return true;
    }

    private boolean alone(boolean alone) {
        return alone || breakQueue("a descriptor with both INDIRECT and NEXT");
    }

    private static int id(long word) {
        return (int) (word >>> PackedRing.ID_SHIFT) & 0xFFFF;
    }

    private void advance() {
        available++;
        if (++availableSlot == size) {
            availableSlot = 0;
            availableFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
    }

    private boolean walk(RingChain chain, long firstHandle, long firstWord) {
        long handle = firstHandle;
        long word = firstWord;
        for (int count = 1; ; count++) {
            advance();
            int flags = (int) (word >>> PackedRing.FLAGS_SHIFT);
            long length = word & 0xFFFFFFFFL;
            boolean last = (flags & Descriptor.NEXT) == 0;
            if (inflight != null && !note(handle, word)) {
                return false;
            }
            if ((flags & Descriptor.INDIRECT) != 0) {
                return alone(last && count == 1) && walkTable(chain, handle, length);
            }
            if (!element(chain, handle, length, (flags & Descriptor.WRITE) != 0)) {
                return false;
            }
            if (last) {
                // The id of a list is that of its last descriptor (virtio 2.8.6).
                chain.id = id(word);
                chain.descriptors = count;
                return true;
            }
            if (count == size) {
                return breakQueue(
                        "chain of more than %d descriptors, which is the limit".formatted(size));
            }
            long descriptor = ring + (long) availableSlot * Descriptor.BYTES;
            handle = RingMemory.get64(descriptor);
            word = RingMemory.get64(descriptor + PackedRing.WORD);
        }
    }

    private boolean walkTable(RingChain chain, long table, long bytes) {
        if (!table(table, bytes)) {
            return false;
        }
        long whole = memory.translate(table, bytes, false);
        for (long at = 0; at < bytes; at += Descriptor.BYTES) {
            long descriptor =
                    whole != DriverMemory.FAULT
                            ? whole + at
                            : memory.translate(table + at, Descriptor.BYTES, false);
            if (descriptor == DriverMemory.FAULT) {
                return fault(table + at, Descriptor.BYTES, false);
            }
            long handle = RingMemory.get64(descriptor);
            long word = RingMemory.get64(descriptor + PackedRing.WORD);
            int flags = (int) (word >>> PackedRing.FLAGS_SHIFT);
            if ((flags & Descriptor.INDIRECT) != 0) {
                return breakQueue("an indirect descriptor within an indirect table");
            }
            if (!element(chain, handle, word & 0xFFFFFFFFL, (flags & Descriptor.WRITE) != 0)) {
                return false;
            }
        }
        return true;
    }

    @Override
    public void complete(Chain done, long written) {
        RingChain chain = (RingChain) done;
        close(chain, written);
        if (!serving) {
            return;
        }
        long length = Math.min(written, 0xFFFFFFFFL);
        if (turns == null) {
            use(chain.id, chain.descriptors, length);
        } else {
            useInTurn(chain, length);
        }
    }

    @Override
    void use(int id, int descriptors, long length) {
        if (inflight != null) {
            inflight.using(id, descriptors);
        }
        int flags = usedFlags | (length > 0 ? Descriptor.WRITE : 0);
        long at = ring + (long) usedSlot * Descriptor.BYTES + PackedRing.WORD;
        long word =
                length | (long) id << PackedRing.ID_SHIFT | (long) flags << PackedRing.FLAGS_SHIFT;
        if (holding && heldAt == 0) {
            heldAt = at;
            heldWord = word;
        } else {
            RingMemory.setRelease64(at, word);
            if (inflight != null && !holding) {
                inflight.published();
            }
        }
        used += descriptors;
        usedSlot += descriptors;
        if (usedSlot >= size) {
            usedSlot -= size;
            usedFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
    }

    @Override
    void hold() {
        holding = true;
        heldAt = 0;
    }

    @Override
    void publish() {
        holding = false;
        if (heldAt != 0) {
            RingMemory.setRelease64(heldAt, heldWord);
            if (inflight != null) {
                inflight.published();
            }
        }
    }

    @Override
    public void notifyDriver() {
        long old = notified;
        long now = used;
        if (now == old && !notifyAnyway || !serving) {
            return;
        }
        notified = now;
        // Used descriptors must be visible before the wish to be interrupted is read.
        VarHandle.fullFence();
        int event = RingMemory.getOpaque32(driverEvent);
        boolean wanted = PackedRing.needEvent(event, now, old, size, eventIdx && !notifyAnyway);
        notifyAnyway = false;
        if (wanted) {
            interrupt();
        }
    }

    @Override
    void suppress() {
        RingMemory.setOpaque32(deviceEvent, PackedRing.DISABLE << 16);
        look();
    }

    @Override
    boolean awaitNotification() {
        seen = Math.max(seen, available);
        askForNotification();
        // The wish to be notified must be visible before the ring is read again.
        VarHandle.fullFence();
        return look();
    }

    private void askForNotification() {
        RingMemory.setOpaque32(
                deviceEvent, eventIdx ? PackedRing.eventAt(seen, size) : PackedRing.ENABLE << 16);
    }

    /** Looks how far descriptors are available; whether there are more than were seen. */
    private boolean look() {
        long before = Math.max(seen, available);
        long at = before;
        while (at - available < size
                && PackedRing.matches(
                        RingMemory.getAcquire64(
                                ring + at % size * Descriptor.BYTES + PackedRing.WORD),
                        PackedRing.availableFlags(at, size))) {
            at++;
        }
        seen = at;
        return at != before;
    }
}
