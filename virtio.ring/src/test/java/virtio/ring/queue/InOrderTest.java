package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** Buffers used in the order in which they were made available (virtio 2.7.9 and 2.8.8). */
class InOrderTest {
    private static final int SIZE = 8;
    private static final int AVAIL_1 = PackedRing.AVAIL;
    private static final int USED_1 = PackedRing.AVAIL | PackedRing.USED;

    private final Arena arena = Arena.ofShared();
    private final Arena shared = LiveMemory.arena();
    private final MemorySegment buffer = arena.allocate(4096, 8);
    private final ScatterList list = new ScatterList(SIZE + 1);
    private Rig rig;

    private void start(boolean packed, int size, int... more) throws Exception {
        Features features = Features.of(Feature.VERSION_1, Feature.IN_ORDER).with(more);
        rig = new Rig(Mapped.identity(), packed ? features.with(Feature.RING_PACKED) : features);
        rig.start(size);
    }

    @AfterEach
    void stop() {
        if (rig != null) {
            rig.close();
        }
        shared.close();
        arena.close();
    }

    private void add(long token, int out, int in) {
        list.clear();
        for (int i = 0; i < out; i++) {
            list.out(buffer, 8 * i, 8);
        }
        for (int i = 0; i < in; i++) {
            list.in(buffer, 8 * i, 8);
        }
        assertTrue(rig.driver.add(list, token));
    }

    private List<Chain> take(int count) {
        List<Chain> chains = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            Chain chain = rig.device.newChain();
            assertTrue(rig.device.next(chain));
            chains.add(chain);
        }
        return chains;
    }

    private List<Long> got() {
        List<Long> tokens = new ArrayList<>();
        for (long token; (token = rig.driver.get()) != Virtqueue.NONE; ) {
            tokens.add(token);
        }
        return tokens;
    }

    /** The device says so in the split used ring, or over the packed descriptor at its slot. */
    private void use(boolean packed, int slot, int index, int id, int length, boolean write) {
        if (packed) {
            RingMemory.setRelease64(
                    rig.driver.layout().descriptorArea() + 16L * slot + 8,
                    length
                            | (long) id << 32
                            | (long) (USED_1 | (write ? Descriptor.WRITE : 0)) << 48);
        } else {
            long used = rig.driver.layout().deviceArea();
            RingMemory.set64(used + SplitRing.RING + 8L * slot, id | (long) length << 32);
            RingMemory.setRelease16(used + SplitRing.IDX, index);
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @Tag("DEV-CORE-026")
    void completionsWaitForTheirTurn(boolean packed) throws Exception {
        start(packed, SIZE);
        Random random = new Random(1);
        long next = 0;
        for (int round = 0; round < 20_000; round++) {
            int count = 1 + random.nextInt(3);
            for (int i = 0; i < count; i++) {
                add(next + i, random.nextInt(2), 1);
            }
            rig.driver.kick();
            List<Chain> open = take(count);
            Chain first = open.getFirst();
            while (open.size() > 1) {
                Chain chain = open.remove(1 + random.nextInt(open.size() - 1));
                rig.device.complete(chain, 8);
            }
            if (count > 1) {
                assertEquals(Virtqueue.NONE, rig.driver.get(), "the first is not completed");
            }
            rig.device.complete(first, 3);
            for (int i = 0; i < count; i++) {
                assertEquals(next + i, rig.driver.get());
                assertEquals(i == 0 ? 3 : 8, rig.driver.usedLength());
            }
            next += count;
        }
        assertEquals(SIZE, rig.driver.free());
        assertNull(rig.driver.broken());
        assertNull(rig.device.broken());
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void oneUsedElementStandsForABatch(boolean packed) throws Exception {
        start(packed, SIZE);
        add(10, 0, 1);
        add(11, 2, 0);
        add(12, 1, 2);
        add(13, 0, 1);
        rig.driver.kick();
        // Descriptors 0, 1 and 2, 3 to 5, 6: the third is the last of the batch.
        use(packed, 0, 3, 3, 9, true);
        long[] tokens = new long[2];
        int[] lengths = new int[2];
        assertEquals(2, rig.driver.get(tokens, lengths));
        assertEquals(List.of(10L, 11L), List.of(tokens[0], tokens[1]));
        assertEquals(List.of(8, 0), List.of(lengths[0], lengths[1]));
        assertFalse(rig.driver.enableCallback(), "the third is used as well");
        assertEquals(!packed, rig.driver.enableCallbackDelayed(), "one of two is few enough");
        int before = rig.callbacks;
        rig.driver.interrupted();
        assertEquals(before + 1, rig.callbacks);
        assertEquals(12, rig.driver.get());
        assertEquals(9, rig.driver.usedLength());
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertTrue(rig.driver.enableCallback());
        // The next one lies where the device skipped to.
        use(packed, packed ? 6 : 3, 4, 6, 0, true);
        assertEquals(13, rig.driver.get());
        assertEquals(0, rig.driver.usedLength());
        assertEquals(SIZE, rig.driver.free());
        assertNull(rig.driver.broken());
    }

    /** A batch that spans the end of the ring, of every length, again and again. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void batchesGoAroundTheEnd(boolean packed) throws Exception {
        int size = packed ? 7 : SIZE;
        start(packed, size);
        long next = 0;
        int slot = 0;
        for (int round = 0; round < 70_000; round++) {
            int count = 1 + round % size;
            int lap = (int) (next / size);
            for (int i = 0; i < count; i++) {
                add(next + i, 0, 1);
            }
            rig.driver.kick();
            next += count;
            int id = (int) ((next - 1) % size);
            if (packed) {
                int flags = (lap & 1) == 0 ? USED_1 : 0;
                RingMemory.setRelease64(
                        rig.driver.layout().descriptorArea() + 16L * slot + 8,
                        5L | (long) id << 32 | (long) (flags | Descriptor.WRITE) << 48);
            } else {
                use(false, slot, (int) next & 0xFFFF, id, 5, true);
            }
            for (int i = count; i > 0; i--) {
                assertEquals(next - i, rig.driver.get());
                assertEquals(i == 1 ? 5 : 8, rig.driver.usedLength());
            }
            slot = (int) (next % size);
        }
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertNull(rig.driver.broken());
    }

    @Test
    void aBatchBeyondTheUsedIndexBreaks() throws Exception {
        start(false, SIZE);
        add(1, 0, 1);
        add(2, 0, 1);
        add(3, 0, 1);
        rig.driver.kick();
        use(false, 0, 2, 2, 0, true);
        assertEquals(List.of(1L, 2L), got());
        assertEquals(
                "queue 0 (test): the device used a batch up to descriptor 2 of more buffers than"
                        + " the limit, 2",
                rig.driver.broken());
        assertEquals(List.of(rig.driver.broken()), rig.driverBroken);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aBatchThatEndsNowhereBreaks(boolean packed) throws Exception {
        start(packed, SIZE);
        add(1, 0, 1);
        add(2, 1, 1);
        rig.driver.kick();
        // The second descriptor of a buffer is none that a buffer can be known by.
        use(packed, 0, 2, 2, 0, true);
        assertEquals(List.of(), got());
        assertEquals(
                "queue 0 (test): the device used %s 2, which is not outstanding"
                        .formatted(packed ? "buffer" : "descriptor"),
                rig.driver.broken());
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aLengthBeyondTheLastBufferBreaks(boolean packed) throws Exception {
        start(packed, SIZE);
        add(1, 0, 2);
        add(2, 0, 1);
        rig.driver.kick();
        use(packed, 0, 2, 2, 9, true);
        assertEquals(List.of(), got());
        assertEquals(
                "queue 0 (test): the device wrote 9 bytes to %s 2, the limit is 8"
                        .formatted(packed ? "buffer" : "the buffer of descriptor"),
                rig.driver.broken());
    }

    @Test
    @Tag("DRV-SPLIT-005")
    void descriptorsAreTakenInRingOrder() throws Exception {
        start(false, SIZE);
        long table = rig.driver.layout().descriptorArea();
        int at = 0;
        for (int round = 0; round < 3 * SIZE; round++) {
            add(round, 1, 2);
            for (int i = 0; i < 3; i++) {
                long word = RingMemory.get64(table + 16L * ((at + i) % SIZE) + 8);
                assertEquals(i == 2 ? 0 : Descriptor.NEXT, (int) (word >>> 32) & Descriptor.NEXT);
                assertEquals(i == 2 ? 0 : (at + i + 1) % SIZE, (int) (word >>> 48));
            }
            rig.driver.kick();
            rig.device.complete(take(1).getFirst(), 0);
            assertEquals(round, rig.driver.get());
            at = (at + 3) % SIZE;
        }
    }

    @Test
    @Tag("DRV-SPLIT-010")
    void indirectDescriptorsAreSequential() throws Exception {
        start(false, SIZE, Feature.INDIRECT_DESC);
        add(1, 0, 1);
        add(2, SIZE, 1);
        long word = RingMemory.get64(rig.driver.layout().descriptorArea() + 16 + 8);
        assertEquals(Descriptor.INDIRECT, (int) (word >>> 32) & 0xFFFF);
        long table = RingMemory.get64(rig.driver.layout().descriptorArea() + 16);
        for (int i = 0; i <= SIZE; i++) {
            int next = (int) (RingMemory.get64(table + 16L * i + 8) >>> 48);
            assertEquals(i == SIZE ? 0 : i + 1, next);
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void whatWasDetachedStartsAnew(boolean packed) throws Exception {
        start(packed, SIZE, Feature.RING_RESET);
        for (int round = 0; round < 10; round++) {
            add(1, 1, 1);
            add(2, 0, 1);
            add(3, 0, 1);
            rig.driver.kick();
            use(packed, 0, 2, 2, 0, true);
            assertEquals(1, rig.driver.get());
            List<Long> recycled = new ArrayList<>();
            // In the middle of a batch.
            rig.driver.reset(recycled::add);
            assertEquals(List.of(2L, 3L), recycled);
            assertEquals(SIZE, rig.driver.free());
            assertEquals(Virtqueue.NONE, rig.driver.get());
        }
    }

    /** Buffers that nobody is told of yet are handed out again after the device's death. */
    @Test
    void whatWasHeldBackComesAgain() throws Exception {
        start(false, SIZE);
        MemorySegment region = shared.allocate(16 + 16 * SIZE, 8);
        QueueLayout at = rig.driver.layout();
        QueueLayout tracked =
                new QueueLayout(
                        SIZE, at.descriptorArea(), at.driverArea(), at.deviceArea(), 0, region);
        rig.startQueue(0, tracked);
        for (int i = 0; i < 4; i++) {
            buffer.set(ValueLayout.JAVA_LONG, 8L * i, i);
            rig.driver.add(list.clear().out(buffer, 8L * i, 8), i);
        }
        rig.driver.kick();
        List<Chain> taken = take(3);
        rig.device.complete(taken.get(0), 0);
        rig.device.complete(taken.get(2), 0);
        assertEquals(List.of(0L), got());
        rig.startQueue(0, tracked);
        List<Chain> again = take(3);
        assertEquals(List.of(1L, 2L, 3L), again.stream().map(chain -> chain.read64(0)).toList());
        again.reversed().forEach(chain -> rig.device.complete(chain, 0));
        assertEquals(List.of(1L, 2L, 3L), got());
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void moreOutstandingThanDescriptorsBreaksTheDevice(boolean packed) throws Exception {
        start(packed, 4);
        for (int i = 0; i < 4; i++) {
            add(i, 1, 0);
        }
        rig.driver.kick();
        take(4);
        if (packed) {
            long word = RingMemory.get64(rig.driver.layout().descriptorArea() + 8);
            RingMemory.setRelease64(
                    rig.driver.layout().descriptorArea() + 8,
                    word & ~((long) AVAIL_1 << 48) | (long) PackedRing.USED << 48);
        } else {
            RingMemory.setRelease16(rig.driver.layout().driverArea() + SplitRing.IDX, 5);
        }
        Chain one = rig.device.newChain();
        assertFalse(rig.device.next(one));
        assertEquals("queue 0: 5 buffers outstanding, the limit is 4", rig.device.broken());
    }
}
