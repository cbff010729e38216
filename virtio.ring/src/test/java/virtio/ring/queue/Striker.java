package virtio.ring.queue;

import virtio.api.Feature;
import virtio.api.map.CoherentMemory;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;

/**
 * Writes what a hostile peer would into the memory that both ends share: by field, with values near
 * the limits of each, whole steps of the protocol among them, and old states again.
 */
final class Striker {
    private final SplittableRandom random;
    private final GuardedMemory memory;
    private final Rig rig;
    private final MemorySegment inflight;
    private final boolean packed;

    /** An earlier state of everything that is shared. */
    private final byte[][] earlier = new byte[GuardedMemory.BANKS][];

    private int size;
    private long descriptors;
    private long driverArea;
    private long deviceArea;

    /**
     * @param inflight null when nothing is tracked
     */
    Striker(SplittableRandom random, GuardedMemory memory, Rig rig, MemorySegment inflight) {
        this.random = random;
        this.memory = memory;
        this.rig = rig;
        this.inflight = inflight;
        packed = rig.features.has(Feature.RING_PACKED);
    }

    void strike() {
        QueueLayout layout = rig.driver.layout();
        size = layout.size();
        descriptors = memory.address(layout.descriptorArea());
        driverArea = memory.address(layout.driverArea());
        deviceArea = memory.address(layout.deviceArea());
        int kind = random.nextInt(16);
        if (kind == 0) {
            anywhere();
        } else if (kind == 1) {
            travelInTime();
        } else if (kind <= 3) {
            table();
        } else if (kind == 4 && inflight != null) {
            inflight();
        } else if (packed) {
            packed(kind);
        } else {
            split(kind);
        }
    }

    private void split(int kind) {
        int i = random.nextInt(size);
        long availableIdx = driverArea + SplitRing.IDX;
        long usedIdx = deviceArea + SplitRing.IDX;
        long available = driverArea + SplitRing.RING + 2L * i;
        long used = deviceArea + SplitRing.RING + 8L * i;
        switch (kind) {
            case 5, 6 -> descriptor(descriptors + 16L * i, 12, 14);
            case 7 -> mutate16(random.nextBoolean() ? availableIdx : usedIdx);
            case 8 -> mutate16(available);
            case 9 -> mutate16(random.nextBoolean() ? driverArea : deviceArea);
            case 10 ->
                    mutate16(
                            random.nextBoolean()
                                    ? driverArea + SplitRing.usedEvent(size)
                                    : deviceArea + SplitRing.availEvent(size));
            case 11 -> mutate32(used + (random.nextBoolean() ? 0 : 4));
            case 12, 13 -> {
                // A buffer is made available.
                int idx = RingMemory.get16(availableIdx);
                RingMemory.set16(driverArea + SplitRing.RING + 2L * (idx % size), i);
                RingMemory.set16(availableIdx, idx + 1);
            }
            default -> {
                // A buffer is used.
                int idx = RingMemory.get16(usedIdx);
                RingMemory.set64(
                        deviceArea + SplitRing.RING + 8L * (idx % size), i | (long) length() << 32);
                RingMemory.set16(usedIdx, idx + 1);
            }
        }
    }

    private void packed(int kind) {
        long slot = descriptors + 16L * random.nextInt(size);
        switch (kind) {
            case 4, 5, 6, 7 -> descriptor(slot, 14, 12);
            case 8 -> mutate16(random.nextBoolean() ? driverArea : deviceArea);
            case 9 -> mutate16((random.nextBoolean() ? driverArea : deviceArea) + 2);
            case 10, 11, 12 -> {
                // Becomes available, or used, in this lap or the other.
                int flags = RingMemory.get16(slot + 14) & ~(PackedRing.AVAIL | PackedRing.USED);
                int lap = (random.nextBoolean() ? PackedRing.AVAIL : 0);
                lap |= (random.nextBoolean() ? PackedRing.USED : 0);
                RingMemory.set16(slot + 14, flags | lap);
            }
            default -> {
                // The next that the driver waits for is used.
                long next = descriptors + 16L * rig.driver.snapshot().usedIndex();
                int flags =
                        (random.nextBoolean() ? PackedRing.AVAIL | PackedRing.USED : 0)
                                | (random.nextBoolean() ? Descriptor.WRITE : 0);
                RingMemory.set64(
                        next + PackedRing.WORD,
                        length()
                                | (long) random.nextInt(size) << PackedRing.ID_SHIFT
                                | (long) flags << PackedRing.FLAGS_SHIFT);
            }
        }
    }

    /** A used length: 0 is right for most buffers. */
    private int length() {
        return random.nextBoolean() ? 0 : random.nextInt(64);
    }

    private void descriptor(long at, int flags, int nextOrId) {
        switch (random.nextInt(6)) {
            case 0, 1 -> RingMemory.set64(at, handle(RingMemory.get64(at)));
            case 2 -> mutate32(at + 8);
            case 3 -> RingMemory.set16(at + flags, RingMemory.get16(at + flags) ^ flag());
            case 4 -> mutate16(at + nextOrId);
            default -> {
                // Points at a table, of a length that may be one.
                RingMemory.set64(at, handle(RingMemory.get64(at)));
                int entries = random.nextInt(5) == 0 ? random.nextInt(70_000) : random.nextInt(9);
                set32(at + 8, entries * 16 + (random.nextInt(8) == 0 ? 8 : 0));
                RingMemory.set16(
                        at + flags, RingMemory.get16(at + flags) & ~7 | Descriptor.INDIRECT);
            }
        }
    }

    private int flag() {
        return random.nextInt(8) == 0 ? 1 << random.nextInt(16) : 1 << random.nextInt(3);
    }

    /** A descriptor of a table, of the first ones more often than not, or what would be one. */
    private void table() {
        CoherentMemory where = somethingShared();
        if (descriptors == where.segment().address()) {
            where = somethingShared();
        }
        long entries = where.segment().byteSize() / 16;
        long near = Math.min(entries, random.nextInt(4) > 0 ? 12 : entries);
        long at = where.segment().address() + 16 * random.nextLong(near);
        descriptor(at, packed ? 14 : 12, packed ? 12 : 14);
    }

    private CoherentMemory somethingShared() {
        CoherentMemory[] shared = memory.shared();
        int i = random.nextInt(GuardedMemory.BANKS);
        while (shared[i] == null) {
            i = (i + 1) % GuardedMemory.BANKS;
        }
        return shared[i];
    }

    private void inflight() {
        long header = inflight.address();
        long state = header + 16 + 16L * random.nextInt(size);
        switch (random.nextInt(5)) {
            case 0 -> mutate16(header + 2 * random.nextInt(8));
            case 1 -> RingMemory.set8(state, random.nextInt(3));
            case 2 -> mutate16(state + 6);
            case 3 -> RingMemory.set64(state + 8, random.nextLong());
            default -> RingMemory.set64(state, random.nextLong());
        }
    }

    private void anywhere() {
        MemorySegment where = somethingShared().segment();
        long at = where.address() + random.nextLong(where.byteSize());
        RingMemory.set8(at, RingMemory.get8(at) ^ 1 << random.nextInt(8));
    }

    private void travelInTime() {
        boolean back = random.nextBoolean();
        for (int i = 0; i < GuardedMemory.BANKS; i++) {
            CoherentMemory now = memory.shared()[i];
            if (now == null) {
                earlier[i] = null;
            } else if (!back) {
                earlier[i] = now.segment().toArray(ValueLayout.JAVA_BYTE);
            } else if (earlier[i] != null && earlier[i].length == now.segment().byteSize()) {
                now.segment().copyFrom(MemorySegment.ofArray(earlier[i]));
            }
        }
    }

    private void mutate16(long at) {
        RingMemory.set16(at, value(RingMemory.get16(at), 16));
    }

    private void mutate32(long at) {
        set32(at, value(RingMemory.get32(at), 32));
    }

    private static void set32(long at, int value) {
        RingMemory.set16(at, value);
        RingMemory.set16(at + 2, value >>> 16);
    }

    private int value(int now, int bits) {
        return switch (random.nextInt(10)) {
            case 0 -> 0;
            case 1 -> 1;
            case 2 -> size - 1;
            case 3 -> size;
            case 4 -> now + 1;
            case 5 -> now - 1;
            case 6 -> -1;
            case 7 -> 1 << random.nextInt(bits);
            case 8 -> now + size * random.nextInt(-2, 3);
            default -> random.nextInt();
        };
    }

    private long handle(long now) {
        return switch (random.nextInt(10)) {
            case 0 -> 0;
            case 1 -> -1L - random.nextInt(64);
            case 2 -> Long.MIN_VALUE + random.nextInt(64);
            case 3 -> now + random.nextInt(-64, 65);
            case 4 -> random.nextLong();
            case 5, 6 -> memory.beforeTheEnd(random.nextInt(1, 600));
            case 7 -> memory.beforeTheEnd(GuardedMemory.BANK_BYTES - random.nextInt(4096));
            default -> {
                // Into the ring or a table, as far as to its last byte.
                CoherentMemory where = somethingShared();
                yield where.mapHandle()
                        + (random.nextBoolean()
                                ? where.segment().byteSize() - random.nextInt(1, 64)
                                : 16L * random.nextInt(size));
            }
        };
    }
}
