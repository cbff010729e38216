package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** A device's end of a packed queue that dies and comes back by its inflight region. */
class PackedInflightTest {
    private static final int SIZE = 7;
    private static final int BYTES = 32 + 32 * SIZE;

    private final Arena arena = Arena.ofShared();
    private final Arena shared = LiveMemory.arena();
    private final MemorySegment region = shared.allocate(BYTES, 8);
    private final MemorySegment buffers = arena.allocate(64 * 64, 8);
    private final ScatterList list = new ScatterList(4);
    private Rig rig;

    private void start(int... more) throws Exception {
        rig =
                new Rig(
                        Mapped.identity(),
                        Features.of(Feature.VERSION_1, Feature.RING_PACKED).with(more));
        rig.start(SIZE);
        revive();
    }

    @AfterEach
    void stop() {
        rig.close();
        shared.close();
        arena.close();
    }

    /** The old life is not told, as if its process had been killed. */
    private void revive() throws VirtioException {
        revive(region);
    }

    private void revive(MemorySegment inflight) throws VirtioException {
        QueueLayout at = rig.driver.layout();
        rig.startQueue(
                0,
                new QueueLayout(
                        SIZE, at.descriptorArea(), at.driverArea(), at.deviceArea(), 0, inflight));
    }

    /** A buffer of that many elements that carries its number. */
    private void add(int number, int elements) {
        long at = 64L * (number % 64);
        list.clear();
        for (int i = 0; i < elements; i++) {
            buffers.set(ValueLayout.JAVA_LONG, at + 8L * i, number);
            list.out(buffers, at + 8L * i, 8);
        }
        assertTrue(rig.driver.add(list, number));
        rig.driver.kick();
    }

    private List<Chain> take(int count) {
        List<Chain> chains = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            Chain chain = rig.device.newChain();
            assertTrue(rig.device.next(chain), rig.device.broken());
            chains.add(chain);
        }
        return chains;
    }

    private List<Long> rest() {
        List<Long> numbers = new ArrayList<>();
        Chain chain = rig.device.newChain();
        while (rig.device.next(chain)) {
            long number = chain.read64(0);
            assertEquals(number, chain.read64(chain.readableBytes() - 8), "its last element");
            numbers.add(number);
            rig.device.complete(chain, 0);
        }
        assertNull(rig.device.broken());
        return numbers;
    }

    private List<Long> got() {
        List<Long> tokens = new ArrayList<>();
        for (long token; (token = rig.driver.get()) != Virtqueue.NONE; ) {
            tokens.add(token);
        }
        assertNull(rig.driver.broken());
        return tokens;
    }

    @Test
    void whatWasNotCompletedComesAgainInOrder() throws Exception {
        start();
        add(0, 1);
        add(1, 2);
        add(2, 1);
        add(3, 1);
        add(4, 2);
        List<Chain> taken = take(4);
        // Over the descriptors of 0 and 1, which the ring then has no more.
        rig.device.complete(taken.get(3), 0);
        rig.device.complete(taken.get(2), 0);
        revive();
        assertEquals(List.of(0L, 1L, 4L), rest());
        assertEquals(List.of(3L, 2L, 0L, 1L, 4L), got());
        assertEquals(SIZE, rig.driver.free());
        add(5, 3);
        assertEquals(List.of(5L), rest());
        revive();
        assertEquals(List.of(), rest());
        assertEquals(List.of(5L), got());
    }

    @Test
    void dyingTwiceKeepsTheOrder() throws Exception {
        start();
        for (int i = 0; i < 6; i++) {
            add(i, 1);
        }
        take(3);
        revive();
        List<Chain> again = take(5);
        assertEquals(4, again.get(4).read64(0));
        rig.device.complete(again.get(0), 0);
        revive();
        assertEquals(List.of(1L, 2L, 3L, 4L, 5L), rest());
    }

    @Test
    void indirectBuffersComeAgain() throws Exception {
        start(Feature.INDIRECT_DESC);
        add(0, 4);
        add(1, 4);
        List<Chain> taken = take(2);
        rig.device.complete(taken.get(1), 0);
        revive();
        assertEquals(List.of(0L), rest());
        assertEquals(List.of(1L, 0L), got());
    }

    /** Killed at any moment, through many laps: nothing is lost and nothing comes twice. */
    @ParameterizedTest
    @ValueSource(ints = {Feature.VERSION_1, Feature.IN_ORDER, Feature.EVENT_IDX})
    void nothingIsLostThroughManyLaps(int feature) throws Exception {
        start(feature);
        Random random = new Random(feature);
        List<Chain> open = new ArrayList<>();
        boolean[] outstanding = new boolean[64];
        int number = 0;
        for (int step = 0; step < 100_000; step++) {
            switch (random.nextInt(8)) {
                case 0, 1, 2 -> {
                    int elements = 1 + random.nextInt(3);
                    if (elements <= rig.driver.free() && !outstanding[number % 64]) {
                        add(number, elements);
                        outstanding[number++ % 64] = true;
                    }
                }
                case 3, 4 -> {
                    Chain chain = rig.device.newChain();
                    if (rig.device.next(chain)) {
                        long what = chain.read64(0);
                        assertEquals(what, chain.read64(chain.readableBytes() - 8));
                        open.add(chain);
                    }
                }
                case 5, 6 -> {
                    if (open.size() > 1 && random.nextBoolean()) {
                        Chain[] both = {open.removeLast(), open.removeFirst()};
                        rig.device.complete(both, new long[2], 2);
                    } else if (!open.isEmpty()) {
                        Chain chain = open.remove(random.nextInt(open.size()));
                        assertTrue(outstanding[(int) (chain.read64(0) % 64)]);
                        rig.device.complete(chain, 0);
                    }
                    for (long token : got()) {
                        assertTrue(outstanding[(int) (token % 64)], "buffer " + token);
                        outstanding[(int) (token % 64)] = false;
                    }
                }
                default -> {
                    revive();
                    open.clear();
                }
            }
            assertNull(rig.device.broken());
            assertNull(rig.driver.broken());
        }
        revive();
        rest();
        for (long token : got()) {
            assertTrue(outstanding[(int) (token % 64)]);
            outstanding[(int) (token % 64)] = false;
        }
        for (boolean lost : outstanding) {
            assertFalse(lost);
        }
        assertTrue(number > 10 * SIZE);
        assertEquals(SIZE, rig.driver.free());
    }

    private int get16(int offset) {
        return RingMemory.get16(region.address() + offset);
    }

    @Test
    void theRegionIsAsOthersReadIt() throws Exception {
        start();
        assertEquals(1, get16(8), "version");
        assertEquals(SIZE, get16(10), "desc_num");
        assertEquals(0, get16(12), "free_head");
        assertEquals(1, RingMemory.get8(region.address() + 20), "used_wrap_counter");
        assertEquals(1, RingMemory.get8(region.address() + 21), "old_used_wrap_counter");
        assertEquals(1, get16(32 + 2), "next");
        add(0, 2);
        add(1, 1);
        List<Chain> taken = take(2);
        assertEquals(3, get16(12), "free_head");
        assertEquals(3, get16(14), "old_free_head");
        assertEquals(1, RingMemory.get8(region.address() + 32), "inflight");
        assertEquals(1, get16(32 + 4), "last");
        assertEquals(2, get16(32 + 6), "num");
        assertEquals(0, RingMemory.get64(region.address() + 32 + 8), "counter");
        assertEquals(1, RingMemory.get64(region.address() + 32 + 64 + 8), "counter");
        assertEquals(8, RingMemory.get32(region.address() + 32 + 20), "len");
        assertEquals(buffers.address(), RingMemory.get64(region.address() + 32 + 24), "addr");
        long word = RingMemory.get64(rig.driver.layout().descriptorArea() + 16 + 8);
        assertEquals(word >>> 32 & 0xFFFF, get16(32 + 32 + 16), "id");
        assertEquals(word >>> 48, get16(32 + 32 + 18), "flags");
        rig.device.complete(taken.get(0), 0);
        assertEquals(2, get16(16), "used_idx");
        assertEquals(2, get16(18), "old_used_idx");
        assertEquals(0, get16(12), "free_head");
        assertEquals(3, get16(32 + 32 + 2), "next of the last");
        assertEquals(0, RingMemory.get8(region.address() + 32), "inflight");
    }

    /** As if it had died right after the buffer was published, or right before. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void deathAroundThePublishing(boolean published) throws Exception {
        start();
        add(0, 1);
        add(1, 1);
        add(2, 1);
        List<Chain> taken = take(2);
        long slot = rig.driver.layout().descriptorArea() + PackedRing.WORD;
        long unused = RingMemory.get64(slot);
        rig.device.complete(taken.get(0), 0);
        // Not noted: the old position and free list, and the buffer as in flight.
        RingMemory.set16(region.address() + 14, 2);
        RingMemory.set16(region.address() + 18, 0);
        RingMemory.set8(region.address() + 32, 1);
        if (!published) {
            RingMemory.set64(slot, unused);
        }
        revive();
        assertEquals(published ? List.of(1L, 2L) : List.of(0L, 1L, 2L), rest());
        assertEquals(List.of(0L, 1L, 2L), got());
    }

    /** Buffers that are used at once, and a death before the first of them is published. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void deathAmongBuffersUsedAtOnce(boolean published) throws Exception {
        start();
        add(0, 1);
        add(1, 2);
        add(2, 1);
        List<Chain> taken = take(3);
        long slot = rig.driver.layout().descriptorArea() + PackedRing.WORD;
        long unused = RingMemory.get64(slot);
        byte[] before = region.toArray(ValueLayout.JAVA_BYTE);
        rig.device.complete(new Chain[] {taken.get(1), taken.get(0)}, new long[2], 2);
        // What is noted once all are published: the old position, and that none is in flight.
        RingMemory.set16(region.address() + 14, 4);
        RingMemory.set16(region.address() + 18, 0);
        region.set(ValueLayout.JAVA_BYTE, 32, before[32]);
        region.set(ValueLayout.JAVA_BYTE, 32 + 32, before[32 + 32]);
        if (!published) {
            RingMemory.set64(slot, unused);
        }
        revive();
        assertEquals(published ? List.of(2L) : List.of(0L, 1L, 2L), rest());
        assertEquals(published ? List.of(1L, 0L, 2L) : List.of(0L, 1L, 2L), got());
    }

    /** The driver had made the slot available again before the position was noted. */
    @Test
    void deathAfterTheDriverWentOn() throws Exception {
        start();
        add(0, 1);
        List<Chain> taken = take(1);
        rig.device.complete(taken.get(0), 0);
        assertEquals(List.of(0L), got());
        for (int i = 1; i <= SIZE; i++) {
            add(i, 1);
        }
        RingMemory.set16(region.address() + 14, 1);
        RingMemory.set16(region.address() + 18, 0);
        RingMemory.set8(region.address() + 32, 1);
        revive();
        assertEquals(List.of(1L, 2L, 3L, 4L, 5L, 6L, 7L), rest());
        assertEquals(List.of(1L, 2L, 3L, 4L, 5L, 6L, 7L), got());
    }

    @Test
    void theDriverIsToldAboutWhatWasUsedBefore() throws Exception {
        start();
        add(0, 1);
        rig.device.complete(take(1).get(0), 0);
        revive();
        rig.device.serve(new OneBackend(q -> {}));
        assertEquals(1, rig.interrupts);
    }

    @Test
    void theDriverIsToldEvenWhereTheRingBeginsAgain() throws Exception {
        start();
        for (int i = 0; i < 2 * SIZE; i++) {
            add(0, 1);
            rig.device.complete(take(1).get(0), 0);
            rig.driver.get();
        }
        revive();
        rig.device.serve(new OneBackend(q -> {}));
        assertEquals(1, rig.interrupts);
    }

    @Test
    void aRegionThatDoesNotFitIsRefused() throws Exception {
        start();
        refused(
                "inflight region of 255 bytes, 7 descriptors need 256 shared ones",
                region.asSlice(0, 255));
        MemorySegment odd = arena.allocate(BYTES + 8, 8).asSlice(4);
        refused("inflight region at %#x is not aligned to 8 bytes".formatted(odd.address()), odd);
        RingMemory.set16(region.address() + 18, SIZE);
        refused("inflight region used up to descriptor 7, the limit is 6", region);
        RingMemory.set16(region.address() + 10, 32);
        refused("inflight region of version 1 for 32 descriptors, not 1 for 7", region);
    }

    private void refused(String sentence, MemorySegment inflight) {
        assertEquals(
                "queue 0: " + sentence,
                assertThrows(VirtioException.class, () -> revive(inflight)).getMessage());
    }

    @Test
    void entriesThatGoRoundInCirclesAreRefused() throws Exception {
        start();
        add(0, 3);
        take(1);
        RingMemory.set16(region.address() + 32 + 32 + 2, 0);
        refused(
                "inflight entry 0 of 3 descriptors goes on at 0, the limit is 6 and no entry twice",
                region);
        RingMemory.set16(region.address() + 32 + 32 + 2, 0xFFFF);
        refused(
                "inflight entry 0 of 3 descriptors goes on at 65535, the limit is 6 and no entry"
                        + " twice",
                region);
    }

    @Test
    void nonsenseInTheRegionHarmsNobody() throws Exception {
        Random random = new Random(1);
        start();
        for (int round = 0; round < 2000; round++) {
            for (int i = 0; i < 3 && rig.driver.free() > 0; i++) {
                rig.driver.add(list.clear().out(buffers, 0, 8), i);
            }
            Chain chain = rig.device.newChain();
            while (random.nextInt(3) > 0 && rig.device.next(chain)) {
                chain = rig.device.newChain();
            }
            for (int i = 0; i < 4; i++) {
                RingMemory.set8(
                        region.address() + 12 + random.nextInt(BYTES - 12),
                        random.nextInt(256) >> random.nextInt(8));
            }
            try {
                revive();
                chain = rig.device.newChain();
                while (rig.device.next(chain)) {
                    rig.device.complete(chain, 0);
                }
            } catch (VirtioException e) {
                region.fill((byte) 0);
                rig.close();
                start();
            }
        }
    }

    /** A driver that makes descriptors available which the device has taken and not used. */
    @Test
    void moreOutstandingThanDescriptorsBreaksTheDevice() throws Exception {
        start();
        for (int i = 0; i < SIZE; i++) {
            add(i, 1);
        }
        take(SIZE);
        long slot = rig.driver.layout().descriptorArea() + PackedRing.WORD;
        long flags = (long) (PackedRing.AVAIL | PackedRing.USED) << PackedRing.FLAGS_SHIFT;
        RingMemory.set64(slot, RingMemory.get64(slot) ^ flags);
        assertFalse(rig.device.next(rig.device.newChain()));
        assertEquals(
                "queue 0: more descriptors outstanding than 7, which is the limit",
                rig.device.broken());
    }
}
