package virtio.api.map;

import java.lang.foreign.MemorySegment;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;

/**
 * Bounce slots at the start of a {@link RegionPool}'s region; what swiotlb is to Linux.
 *
 * <pre>
 * word 0                          word 1
 * | slot 0 | slot 1 | ... | 63 |  | slot 64 | ...      a slot is 4096 bytes
 * </pre>
 *
 * A mapping is a run of slots within one 64-bit word of the bitmap, so that one compare-and-set
 * takes it and one gives it back: no lock, and nothing to fragment beyond a word.
 */
final class BouncePool {
    static final int SLOT_BYTES = 4096;
    private static final int SLOT_SHIFT = 12;
    private static final MemorySegment ZEROES = MemorySegment.ofArray(new byte[SLOT_BYTES]);

    private final MemorySegment region;
    private final int words;
    private final AtomicLongArray taken;
    private final AtomicInteger hint = new AtomicInteger();
    private final AtomicInteger live = new AtomicInteger();

    /** By slot: the first slot of its mapping. */
    private final int[] first;

    /** By first slot: what is mapped; null for a slot that is not the first of a mapping. */
    private final MemorySegment[] pages;

    private final long[] offsets;
    private final long[] sizes;

    BouncePool(MemorySegment region, long bytes) {
        this.region = region;
        int slots = (int) (bytes >>> SLOT_SHIFT);
        words = (slots + 63) >>> 6;
        taken = new AtomicLongArray(words);
        if ((slots & 63) != 0) {
            taken.set(words - 1, -1L << slots);
        }
        first = new int[slots];
        pages = new MemorySegment[slots];
        offsets = new long[slots];
        sizes = new long[slots];
    }

    long maxMappingSize() {
        return Math.min(64, pages.length) * (long) SLOT_BYTES;
    }

    int live() {
        return live.get();
    }

    /** The offset in the region of the bounced copy, or -1 when there is no room. */
    long map(MemorySegment page, long offset, long size, Direction direction, boolean copy) {
        Objects.checkFromIndexSize(offset, size, page.byteSize());
        int count = (int) ((size + SLOT_BYTES - 1) >>> SLOT_SHIFT);
        int slot = take(count);
        if (slot < 0) {
            return -1;
        }
        long at = (long) slot << SLOT_SHIFT;
        try {
            long from = at;
            if (copy && direction.toDevice()) {
                MemorySegment.copy(page, offset, region, at, size);
                from += size;
            }
            clear(from, at + ((long) count << SLOT_SHIFT));
        } catch (RuntimeException e) {
            // The page is closed, or another thread's.
            give(slot, count);
            throw e;
        }
        for (int i = 0; i < count; i++) {
            first[slot + i] = slot;
        }
        offsets[slot] = offset;
        sizes[slot] = size;
        pages[slot] = page;
        live.getAndIncrement();
        return at;
    }

    /**
     * What an earlier mapping left behind is nobody's business. Copied from a page that stays in
     * the cache: to fill a slice of a large region is slower, and may allocate the slice.
     */
    private void clear(long from, long end) {
        for (long at = from; at < end; ) {
            long piece = Math.min(end - at, SLOT_BYTES);
            MemorySegment.copy(ZEROES, 0, region, at, piece);
            at += piece;
        }
    }

    void unmap(long at, long size, Direction direction, boolean copy) {
        int slot = (int) (at >>> SLOT_SHIFT);
        MemorySegment page = pages[slot];
        if (page == null || (at & SLOT_BYTES - 1) != 0 || sizes[slot] != size) {
            throw new IllegalArgumentException(
                    "unmap of %d bytes at bounce offset %d, where %d are mapped"
                            .formatted(size, at, page == null ? 0 : sizes[slot]));
        }
        try {
            if (copy && direction.fromDevice()) {
                MemorySegment.copy(region, at, page, offsets[slot], size);
            }
        } catch (IllegalStateException | WrongThreadException e) {
            // The page was closed meanwhile, or is another thread's: see MapOps.unmapPage.
        } finally {
            pages[slot] = null;
            live.getAndDecrement();
            give(slot, (int) ((size + SLOT_BYTES - 1) >>> SLOT_SHIFT));
        }
    }

    void syncForCpu(long at, long size) {
        int slot = mapping(at, size);
        long delta = at - ((long) slot << SLOT_SHIFT);
        MemorySegment.copy(region, at, pages[slot], offsets[slot] + delta, size);
    }

    void syncForDevice(long at, long size) {
        int slot = mapping(at, size);
        long delta = at - ((long) slot << SLOT_SHIFT);
        MemorySegment.copy(pages[slot], offsets[slot] + delta, region, at, size);
    }

    private int mapping(long at, long size) {
        int slot = first[(int) (at >>> SLOT_SHIFT)];
        long delta = at - ((long) slot << SLOT_SHIFT);
        if (pages[slot] == null || size < 0 || delta + size > sizes[slot]) {
            throw new IllegalArgumentException(
                    "sync of %d bytes at %d of a mapping of %d bytes"
                            .formatted(size, delta, pages[slot] == null ? 0 : sizes[slot]));
        }
        return slot;
    }

    private int take(int count) {
        int start = hint.getPlain();
        for (int i = 0; i < words; i++) {
            int word = (start + i) % words;
            long seen = taken.get(word);
            long run;
            while ((run = firstRun(seen, count)) != 0) {
                if (taken.weakCompareAndSetVolatile(word, seen, seen | run)) {
                    hint.setPlain(word);
                    return (word << 6) + Long.numberOfTrailingZeros(run);
                }
                seen = taken.get(word);
            }
        }
        return -1;
    }

    private void give(int slot, int count) {
        long run = mask(count) << slot;
        taken.getAndAccumulate(slot >>> 6, run, (seen, mine) -> seen & ~mine);
    }

    /** The lowest {@code count} clear bits in a row, or 0 when there is no such run. */
    private static long firstRun(long seen, int count) {
        long starts = ~seen;
        // Bit i stays set while bits i to i + length - 1 are clear; length doubles up to count.
        for (int length = 1; length < count; ) {
            int step = Math.min(length, count - length);
            starts &= starts >>> step;
            length += step;
        }
        return starts == 0 ? 0 : mask(count) << Long.numberOfTrailingZeros(starts);
    }

    private static long mask(int count) {
        return -1L >>> (64 - count);
    }
}
