package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.backend.Chain;
import virtio.api.transport.QueueLayout;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.IntStream;

/** A device's end of a split queue that dies and comes back by its inflight region. */
class InflightTest {
    private static final int SIZE = 16;

    private final Arena arena = Arena.ofShared();
    private final Arena shared = LiveMemory.arena();
    private final MemorySegment region = shared.allocate(16 + 16 * SIZE, 8);
    private final MemorySegment buffers = arena.allocate(8 * 64, 8);
    private Rig rig;

    @BeforeEach
    void start() throws Exception {
        rig = new Rig(Mapped.identity(), Features.of(Feature.VERSION_1));
        rig.start(SIZE);
        revive();
    }

    @AfterEach
    void stop() {
        rig.close();
        shared.close();
        arena.close();
    }

    private void revive() throws VirtioException {
        QueueLayout at = rig.driver.layout();
        rig.startQueue(
                0,
                new QueueLayout(
                        SIZE, at.descriptorArea(), at.driverArea(), at.deviceArea(), 0, region));
    }

    private void add(int... numbers) {
        for (int number : numbers) {
            buffers.set(ValueLayout.JAVA_LONG, 8L * number, number);
            rig.driver.add(new ScatterList(1).out(buffers, 8L * number, 8), number);
        }
        rig.driver.kick();
    }

    private List<Chain> take(int count) {
        return IntStream.range(0, count)
                .mapToObj(
                        i -> {
                            Chain chain = rig.device.newChain();
                            assertTrue(rig.device.next(chain));
                            return chain;
                        })
                .toList();
    }

    private List<Long> rest() {
        List<Long> numbers = new ArrayList<>();
        Chain chain = rig.device.newChain();
        while (rig.device.next(chain)) {
            numbers.add(chain.read64(0));
            rig.device.complete(chain, 0);
        }
        return numbers;
    }

    @Test
    void whatWasNotCompletedComesAgainInOrder() throws Exception {
        add(0, 1, 2, 3, 4);
        List<Chain> taken = take(4);
        rig.device.complete(taken.get(1), 0);
        revive();
        assertEquals(List.of(0L, 2L, 3L, 4L), rest());
        List<Long> got = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            got.add(rig.driver.get());
        }
        assertEquals(List.of(1L, 0L, 2L, 3L, 4L), got);
        add(5);
        assertEquals(List.of(5L), rest());
        revive();
        assertEquals(List.of(), rest());
    }

    @Test
    void dyingTwiceKeepsTheOrder() throws Exception {
        add(0, 1, 2, 3, 4, 5);
        take(3);
        revive();
        List<Chain> again = take(5);
        assertEquals(4, again.get(4).read64(0));
        rig.device.complete(again.get(0), 0);
        revive();
        assertEquals(List.of(1L, 2L, 3L, 4L, 5L), rest());
    }

    @Test
    void deathBetweenPublishingAndNotingIt() throws Exception {
        add(0, 1, 2);
        List<Chain> taken = take(2);
        int head = RingMemory.get16(rig.driver.layout().driverArea() + SplitRing.RING);
        rig.device.complete(taken.get(0), 0);
        // As if it had died right after the used index was published.
        RingMemory.set8(region.address() + 16 + 16L * head, 1);
        RingMemory.set16(region.address() + 14, 0);
        revive();
        assertEquals(List.of(1L, 2L), rest());
    }

    @Test
    void theDriverIsToldAboutWhatWasUsedBefore() throws Exception {
        add(0);
        rig.device.complete(take(1).get(0), 0);
        revive();
        rig.device.serve(new OneBackend(q -> {}));
        assertEquals(1, rig.interrupts);
    }

    @Test
    void theDriverIsToldEvenWhereTheUsedIndexBeginsAgain() throws Exception {
        for (int i = 0; i < 1 << 16; i++) {
            add(0);
            rig.device.complete(take(1).get(0), 0);
            rig.driver.get();
        }
        revive();
        rig.device.serve(new OneBackend(q -> {}));
        assertEquals(1, rig.interrupts);
    }

    @Test
    void aRegionThatDoesNotFitIsRefused() {
        RingMemory.set16(region.address() + 10, 32);
        assertEquals(
                "queue 0: inflight region of version 1 for 32 descriptors, not 1 for 16",
                assertThrows(VirtioException.class, this::revive).getMessage());
        QueueLayout at = rig.driver.layout();
        QueueLayout small =
                new QueueLayout(
                        SIZE,
                        at.descriptorArea(),
                        at.driverArea(),
                        at.deviceArea(),
                        0,
                        region.asSlice(0, 271));
        assertEquals(
                "queue 0: inflight region of 271 bytes, 16 descriptors need 272 shared ones",
                assertThrows(VirtioException.class, () -> rig.startQueue(0, small)).getMessage());
    }

    @Test
    void nonsenseInTheRegionHarmsNobody() throws Exception {
        add(0, 1, 2);
        take(3);
        RingMemory.set16(region.address() + 12, 0xFFFF);
        RingMemory.set16(region.address() + 14, 0x7FFF);
        revive();
        assertEquals(3, rest().size());
        assertFalse(rig.device.next(rig.device.newChain()));
    }

    /** The driver shares the region, and may write to it at any time. */
    @Test
    void regionThatChangesWhileItIsReadIsNoReasonToFail() throws Exception {
        int size = 256;
        MemorySegment changing = shared.allocate(16 + 16 * size, 8);
        new SplitInflight(0, changing, size, 0);
        for (int head = 0; head < size; head++) {
            changing.set(ValueLayout.JAVA_BYTE, 16 + 16L * head, (byte) 1);
        }
        AtomicBoolean stop = new AtomicBoolean();
        Thread writer =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    SplittableRandom random = new SplittableRandom(1);
                                    while (!stop.get()) {
                                        long at = 16 + 16L * random.nextInt(size) + 8;
                                        changing.set(ValueLayout.JAVA_LONG, at, random.nextLong());
                                    }
                                });
        try {
            for (int i = 0; i < 2000; i++) {
                assertEquals(size, new SplitInflight(0, changing, size, 0).recovered());
            }
        } finally {
            stop.set(true);
            writer.join();
        }
    }
}
