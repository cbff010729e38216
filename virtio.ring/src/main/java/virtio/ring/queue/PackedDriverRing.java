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
 * Where the driver's end of a packed virtqueue is in its ring, and what both ends say about
 * notifications (virtio 2.8.10).
 */
abstract class PackedDriverRing extends DriverEnd {
    private static final VarHandle CHECKED64 =
            ValueLayout.JAVA_LONG.withOrder(ByteOrder.LITTLE_ENDIAN).varHandle();

    /** The device writes its event suppression while the driver writes the rest. */
    private static final long LINE_BYTES = 128;

    // As RingMemory.keep has them.
    private long ring;
    private long driverEvent;
    private long deviceEvent;

    // Where the next available descriptor goes, what flags it gets, and descriptors before its lap.
    private char availableSlot;
    private int availableFlags;
    private long availableLap;

    /**
     * Address and word of the first descriptor that was added since the last kick, or 0. As long as
     * the device does not see it, it looks no further, so that the others need no order.
     */
    private long heldAt;

    private long heldWord;

    /** Descriptors that the device may have been notified of. */
    private long notified;

    // Where the next used descriptor is expected, what flags it will have, and descriptors before.
    private char usedSlot;
    private int usedFlags;
    private long usedLap;

    /** Where the next interrupt is due, as a count of descriptors. */
    private long event;

    private boolean suppressed;

    // Descriptors beyond the first of their buffers, and buffers before the last reset.
    long moreAvailable;
    private long moreUsed;
    private long addedBefore;
    private long usedBefore;

    private QueueLayout layout;

    PackedDriverRing(Setup setup) throws VirtioException {
        super(setup);
    }

    @Override
    public final QueueLayout layout() {
        return layout;
    }

    private static long driverEventOffset(int size) {
        return ((long) Descriptor.BYTES * size + LINE_BYTES - 1) & -LINE_BYTES;
    }

    @Override
    final long ringBytes(int size) {
        return driverEventOffset(size) + 2 * LINE_BYTES;
    }

    @Override
    final void checkSize(int size) {
        if (size < 1 || size > PackedRing.MAX_SIZE) {
            throw new IllegalArgumentException(
                    "%s: %d descriptors, a packed queue has 1 to %d"
                            .formatted(this, size, PackedRing.MAX_SIZE));
        }
    }

    @Override
    void initialise(CoherentMemory memory) {
        long eventOffset = driverEventOffset(size);
        long base = memory.segment().address();
        ring = RingMemory.keep(base);
        driverEvent = RingMemory.keep(base + eventOffset);
        deviceEvent = RingMemory.keep(base + eventOffset + LINE_BYTES);
        availableSlot = 0;
        availableFlags = PackedRing.AVAIL;
        availableLap = 0;
        heldAt = 0;
        notified = 0;
        usedSlot = 0;
        usedFlags = PackedRing.AVAIL | PackedRing.USED;
        usedLap = 0;
        moreAvailable = 0;
        moreUsed = 0;
        layout =
                new QueueLayout(
                        size,
                        memory.mapHandle(),
                        memory.mapHandle() + eventOffset,
                        memory.mapHandle() + eventOffset + LINE_BYTES);
        event = 0;
        suppressed = !callbacks;
        tellWish();
    }

    /** Writes the next available descriptor, and goes on. */
    final void makeAvailable(long handle, long length, int id, int flags) {
        long descriptor = RingMemory.address(ring) + (long) Descriptor.BYTES * availableSlot;
        long word =
                length
                        | (long) id << PackedRing.ID_SHIFT
                        | (long) (flags | availableFlags) << PackedRing.FLAGS_SHIFT;
        RingMemory.set64(descriptor, handle);
        if (heldAt == 0) {
            heldAt = descriptor + PackedRing.WORD;
            heldWord = word;
        } else {
            RingMemory.set64(descriptor + PackedRing.WORD, word);
        }
        passAvailable(1);
    }

    /** Goes on by descriptors up to the end of the ring at most. */
    private void passAvailable(int descriptors) {
        int slot = availableSlot + descriptors;
        if (slot == size) {
            slot = 0;
            availableLap += size;
            availableFlags ^= PackedRing.AVAIL | PackedRing.USED;
        }
        availableSlot = (char) slot;
    }

    /**
     * Writes the next available descriptors, of buffers of one each with the ids that are free
     * next, and goes on.
     */
    final void makeAvailable(long[] handles, int[] lengths, int count, int flags) {
        int done = 0;
        while (done < count) {
            if (heldAt == 0) {
                makeAvailable(
                        handles[done], lengths[done], freeIds[shift + free - 1 - done], flags);
                done++;
            }
            int run = Math.min(count - done, size - availableSlot);
            writeRun(handles, lengths, done, run, flags | availableFlags);
            passAvailable(run);
            done += run;
        }
    }

    private void writeRun(long[] handles, int[] lengths, int from, int count, int flags) {
        char[] freeIds = this.freeIds;
        int top = shift + free - 1 - from;
        long descriptors = RingMemory.address(ring) + (long) Descriptor.BYTES * availableSlot;
        for (int i = 0; i < count; i++) {
            long descriptor = descriptors + (long) Descriptor.BYTES * i;
            RingMemory.set64(descriptor, handles[from + i]);
            RingMemory.set64(
                    descriptor + PackedRing.WORD,
                    PackedRing.word(lengths[from + i], freeIds[top - i], flags));
        }
    }

    /** The word where the next used descriptor is expected. */
    private long usedWord() {
        return RingMemory.getAcquire64(usedWords());
    }

    /** The word of the next used descriptor, or {@link PackedRing#NOTHING}. */
    final long nextUsed() {
        // First of all: the ring of a closed queue is no longer there to be read.
        if (broken != null) {
            return PackedRing.NOTHING;
        }
        long word = usedWord();
        return PackedRing.matches(word, usedFlags) ? word : lookAgain();
    }

    private long lookAgain() {
        if (!syncCallbacks()) {
            return PackedRing.NOTHING;
        }
        // An interrupt was only asked for now: what came before would go unnoticed.
        long word = usedWord();
        return PackedRing.matches(word, usedFlags) ? word : PackedRing.NOTHING;
    }

    /** Goes on by a buffer of that state. */
    final void passBuffer(long state) {
        int descriptors = count(state);
        moreUsed += descriptors - 1;
        passUsed(descriptors);
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

    final int usedSlot() {
        return usedSlot;
    }

    private long usedWords() {
        return RingMemory.address(ring) + (long) Descriptor.BYTES * usedSlot + PackedRing.WORD;
    }

    /**
     * Descriptors up to the end of the ring that are used now, at most so many; what was written to
     * their buffers is visible then.
     */
    final int ready(int most) {
        return PackedRing.ready(usedWords(), usedFlags, most);
    }

    /**
     * Gets used buffers of one descriptor each, which are ready, until there is another one; in
     * order, those with a used descriptor of their own.
     *
     * @return how many
     */
    final int getPlain(long[] tokens, int[] usedLengths, int from, int most) {
        long words = usedWords();
        long[] shadow = this.shadow;
        char[] freeIds = this.freeIds;
        int size = this.size;
        int free = this.free;
        int oldest = inOrder ? oldest() : -1;
        int count = 0;
        for (; count < most; count++) {
            long word = RingMemory.get64(words + (long) Descriptor.BYTES * count);
            int id = PackedRing.id(word);
            if (id >= size) {
                break;
            }
            // Not by word(): in this loop a bounds check was measured to cost less than the mask.
            int at = id << SHADOW_SHIFT;
            long token = shadow[at + TOKEN];
            long state = shadow[at + STATE];
            if (Integer.compareUnsigned((int) word, (int) state) > 0
                    || oldest >= 0 && id != oldest
                    || !plain(state) && !(plain(state & ~MAPPED) && unmapOne(id))) {
                break;
            }
            if (oldest < 0) {
                freeIds[free + count] = (char) id;
            } else {
                oldest = id + 1 < size ? id + 1 : 0;
            }
            shadow[at + STATE] = 0;
            tokens[from + count] = token;
            usedLengths[from + count] = (int) word;
        }
        pass(count);
        passUsed(count);
        return count;
    }

    private long available() {
        return availableLap + availableSlot;
    }

    private long used() {
        return usedLap + usedSlot;
    }

    @Override
    public final boolean kickPrepare() {
        long old = notified;
        long now = available();
        if (now == old || broken != null) {
            return false;
        }
        // Each descriptor's second word was written at once, and the first one comes last
        // (DRV-PACKED-011, DRV-PACKED-016).
        RingMemory.setRelease64(heldAt, heldWord);
        heldAt = 0;
        syncCallbacks();
        notified = now;
        // What was made available must be visible before the wish to be notified is read
        // (DRV-PACKED-017).
        VarHandle.fullFence();
        int wish = RingMemory.getOpaque32(RingMemory.address(deviceEvent));
        return eventIdx && PackedRing.wantsEvent(wish)
                ? PackedRing.passed(
                        wish, now, old, availableSlot, availableFlags == PackedRing.AVAIL, size)
                : PackedRing.wantsAny(wish);
    }

    @Override
    final int notificationOffset() {
        return PackedRing.offsetAndWrap(availableSlot, availableFlags == PackedRing.AVAIL, size);
    }

    /**
     * Tells the device what disableCallback wished, or where the next interrupt is due; whether the
     * latter was news.
     */
    private boolean syncCallbacks() {
        if (!callbacks) {
            // Once its event has passed, none follows for a lap: until then the line that says so
            // is left alone.
            if (!suppressed && !(eventIdx && used() - event < size)) {
                suppressed = true;
                tellWish();
            }
            return false;
        }
        if (!eventIdx || event >= used()) {
            return false;
        }
        event = used();
        tellWish();
        VarHandle.fullFence();
        return true;
    }

    @Override
    public final int enableCallbackPrepare() {
        enable(used());
        return PackedRing.offsetAndWrap(usedSlot, usedFlags != 0, size);
    }

    @Override
    public boolean poll(int prepared) {
        if (broken != null) {
            return false;
        }
        long slot = prepared & 0x7FFF;
        return PackedRing.matches(
                RingMemory.getAcquire64(
                        RingMemory.address(ring) + slot * Descriptor.BYTES + PackedRing.WORD),
                prepared >>> 15 == 0 ? 0 : PackedRing.AVAIL | PackedRing.USED);
    }

    @Override
    public boolean enableCallbackDelayed() {
        long most = eventIdx ? (notified - used()) * 3 / 4 : 0;
        enable(used() + most);
        if (broken != null) {
            return true;
        }
        return !PackedRing.matches(usedWord(), usedFlags);
    }

    private void enable(long event) {
        if (broken != null) {
            return;
        }
        callbacks = true;
        suppressed = false;
        this.event = event;
        tellWish();
        // The wish to be called must be visible before used buffers are looked for.
        VarHandle.fullFence();
    }

    /** Writes the driver event suppression structure as it should be. */
    private void tellWish() {
        int wish = PackedRing.ENABLE << 16;
        if (suppressed) {
            wish = PackedRing.DISABLE << 16;
        } else if (eventIdx) {
            // At most a lap ahead.
            int slot = usedSlot + (int) (event - used());
            wish = PackedRing.offsetAndWrap(slot, usedFlags != 0, size) | PackedRing.DESC << 16;
        }
        RingMemory.setOpaque32(RingMemory.address(driverEvent), wish);
    }

    @Override
    boolean moreUsed(MemorySegment ring) {
        // Slot and flags are read while the owner may move on: at worst this is spurious.
        int slot = usedSlot;
        long word =
                (long) CHECKED64.getAcquire(ring, (long) slot * Descriptor.BYTES + PackedRing.WORD);
        return PackedRing.matches(word, usedFlags);
    }

    @Override
    final void carryCounts() {
        addedBefore += available() - moreAvailable;
        usedBefore += used() - moreUsed;
    }

    @Override
    final QueueSnapshot snapshot(long interrupts, String broken) {
        return new QueueSnapshot(
                index,
                name(),
                "packed",
                size,
                free,
                availableSlot,
                usedSlot,
                addedBefore + available() - moreAvailable,
                usedBefore + used() - moreUsed,
                notifications,
                interrupts,
                broken);
    }
}
