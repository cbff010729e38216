package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;

import java.lang.invoke.VarHandle;

/**
 * Where the device's end of a packed virtqueue is in its ring, and what both ends say about
 * notifications (virtio 2.8.10).
 */
abstract class PackedDeviceRing extends DeviceEnd {
    // As RingMemory.keep has them.
    private final long ring;
    private final long driverEvent;
    private final long deviceEvent;
    final PackedInflight inflight;

    // Where the next available descriptor is expected, its flags, and descriptors before its lap.
    char availableSlot;
    int availableFlags;
    long availableLap;

    /** Descriptors that were seen to be available, taken or not. */
    private long seen;

    // Where the next used descriptor goes, its flags, and descriptors before its lap.
    char usedSlot;
    int usedFlags;
    long usedLap;

    private long notified;

    /** Nothing is known about what the driver was told by an earlier life of the queue. */
    private boolean notifyAnyway;

    PackedDeviceRing(
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
        long used = 0;
        long available = 0;
        int position = layout.nextAvailable();
        if (!fresh(position)) {
            available = count(position & 0xFFFF);
            used = count(position >>> 16);
            if (used > available) {
                // Available has begun a lap with wrap counter 1, used is still in the one before.
                available += 2L * size;
            }
        }
        if (layout.inflight() != null) {
            long address = RingMemory.address(ring);
            inflight = new PackedInflight(index, layout.inflight(), size, address, used);
            used = inflight.used();
            available = used + inflight.recovered();
        } else {
            inflight = null;
        }
        seen = available;
        notified = used;
        notifyAnyway = used != 0 || inflight != null && inflight.revived();
        availableSlot = (char) (available % size);
        usedSlot = (char) (used % size);
        availableLap = available - availableSlot;
        usedLap = used - usedSlot;
        availableFlags = PackedRing.availableFlags(available, size);
        usedFlags = PackedRing.usedFlags(used, size);
        askForNotification();
    }

    /**
     * Whether no earlier life left the queue at that position, see {@link #nextAvailable}.
     *
     * <p>0 is a fresh queue, but also one that both ends left at the start of an odd lap: then the
     * first descriptor was used in the lap before, which in a fresh ring it was not.
     */
    private boolean fresh(int position) {
        return position == 0 && (flags(RingMemory.get64(word(0))) & PackedRing.USED) == 0;
    }

    final long descriptor(char slot) {
        return RingMemory.address(ring) + (long) Descriptor.BYTES * slot;
    }

    final long word(int slot) {
        return descriptor((char) slot) + PackedRing.WORD;
    }

    static int flags(long word) {
        return (int) (word >>> PackedRing.FLAGS_SHIFT);
    }

    private long available() {
        return availableLap + availableSlot;
    }

    private long used() {
        return usedLap + usedSlot;
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

    final long availableWord() {
        return RingMemory.getAcquire64(word(availableSlot));
    }

    final void advance(int descriptors) {
        int slot = availableSlot + descriptors;
        if (slot >= size) {
            slot -= size;
            availableLap += size;
            availableFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
        availableSlot = (char) slot;
    }

    final void passUsed(int descriptors) {
        int slot = usedSlot + descriptors;
        if (slot >= size) {
            slot -= size;
            usedLap += size;
            usedFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
        usedSlot = (char) slot;
    }

    @Override
    final int nextAvailable() {
        return PackedRing.offsetAndWrap(availableSlot, availableFlags == PackedRing.AVAIL, size)
                | PackedRing.offsetAndWrap(usedSlot, usedFlags != 0, size) << 16;
    }

    @Override
    public final void notifyDriver() {
        long old = notified;
        long now = used();
        if (now == old && !notifyAnyway || !serving()) {
            return;
        }
        notified = now;
        // Used descriptors must be visible before the wish to be interrupted is read.
        VarHandle.fullFence();
        int wish = RingMemory.getOpaque32(RingMemory.address(driverEvent));
        boolean wanted =
                eventIdx && !notifyAnyway && PackedRing.wantsEvent(wish)
                        ? PackedRing.passed(wish, now, old, usedSlot, usedFlags != 0, size)
                        : PackedRing.wantsAny(wish);
        notifyAnyway = false;
        if (wanted) {
            interrupt();
        }
    }

    @Override
    final void suppress() {
        // Once its event has passed, next to none follows: the line that says so is left alone.
        if (!eventIdx) {
            tellWish(PackedRing.DISABLE << 16);
        }
        look();
    }

    @Override
    final boolean awaitNotification() {
        seen = Math.max(seen, available());
        askForNotification();
        // The wish to be notified must be visible before the ring is read again.
        VarHandle.fullFence();
        return look();
    }

    private void askForNotification() {
        int wish = PackedRing.ENABLE << 16;
        if (eventIdx) {
            // At most a lap ahead.
            int slot = availableSlot + (int) (seen - available());
            boolean wrap = availableFlags == PackedRing.AVAIL;
            wish = PackedRing.offsetAndWrap(slot, wrap, size) | PackedRing.DESC << 16;
        }
        tellWish(wish);
    }

    private void tellWish(int wish) {
        RingMemory.setOpaque32(RingMemory.address(deviceEvent), wish);
    }

    /** Looks how far descriptors are available; whether there are more than were seen. */
    private boolean look() {
        long available = available();
        long before = Math.max(seen, available);
        int ahead = (int) (before - available);
        int slot = availableSlot + ahead;
        int flags = availableFlags;
        while (ahead < size) {
            if (slot >= size) {
                slot -= size;
                flags ^= PackedRing.AVAIL | PackedRing.USED;
            }
            if (!PackedRing.matches(RingMemory.getAcquire64(word(slot)), flags)) {
                break;
            }
            slot++;
            ahead++;
        }
        seen = available + ahead;
        return seen != before;
    }
}
