package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

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

/** What each end owes the other in memory that both see: who writes what, when, and what not. */
class RingRulesTest {
    private static final int SIZE = 8;

    private final Arena arena = Arena.ofShared();
    private final MemorySegment buffer = arena.allocate(256, 8);
    private final ScatterList list = new ScatterList(8);
    private Rig rig;
    private Chain chain;

    static Iterable<Features> features() {
        return EndToEndTest.rings();
    }

    private void start(Features features, int size) throws Exception {
        if (rig != null) {
            rig.close();
        }
        rig = new Rig(Mapped.identity(), features).start(size);
        chain = rig.device.newChain();
    }

    @AfterEach
    void stop() {
        if (rig != null) {
            rig.close();
        }
        arena.close();
    }

    private static boolean split(Features features) {
        return !features.has(Feature.RING_PACKED);
    }

    private static byte[] bytes(long address, long length) {
        return RingMemory.slice(address, length).toArray(ValueLayout.JAVA_BYTE);
    }

    /** The descriptor table or ring. */
    private byte[] descriptors() {
        return bytes(
                rig.driver.layout().descriptorArea(), (long) Descriptor.BYTES * rig.driver.size());
    }

    /** The available ring's index and entries. */
    private byte[] availableRing() {
        return bytes(rig.driver.layout().driverArea() + SplitRing.IDX, 2 + 2L * rig.driver.size());
    }

    /** An indirect table, where the n-th descriptor says that there is one. */
    private byte[] table(int descriptor) {
        long at = rig.driver.layout().descriptorArea() + (long) Descriptor.BYTES * descriptor;
        int flags = RingMemory.get16(at + (split(rig.features) ? 12 : 14));
        return (flags & Descriptor.INDIRECT) == 0
                ? new byte[0]
                : bytes(RingMemory.get64(at), RingMemory.get32(at + 8));
    }

    private byte[][] tables() {
        byte[][] tables = new byte[rig.driver.size()][];
        for (int i = 0; i < tables.length; i++) {
            tables[i] = table(i);
        }
        return tables;
    }

    private boolean addTwo(long token) {
        return rig.driver.add(list.clear().out(buffer, 0, 8).in(buffer, 64, 16), token);
    }

    private boolean addOne(long token) {
        return rig.driver.add(list.clear().out(buffer, 0, 8), token);
    }

    private void useAll() {
        while (rig.device.next(chain)) {
            rig.device.complete(chain, chain.writableBytes());
        }
        rig.device.notifyDriver();
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-SPLIT-001")
    @Tag("DRV-PACKED-001")
    void areasAreAligned(Features features) throws Exception {
        boolean split = split(features);
        for (int size : split ? new int[] {1, 2, 16, 32768} : new int[] {1, 2, 3, 5, 255, 32768}) {
            start(features, size);
            QueueLayout layout = rig.driver.layout();
            assertEquals(0, layout.descriptorArea() % 16, "descriptor area, size " + size);
            assertEquals(0, layout.driverArea() % (split ? 2 : 4), "driver area, size " + size);
            assertEquals(0, layout.deviceArea() % 4, "device area, size " + size);
        }
    }

    /** Also after a reset, where a device has left its own wish behind. */
    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-SPLIT-018")
    void usedFlagsStartAsZero(Features features) throws Exception {
        assumeTrue(split(features), "a packed ring has no used flags");
        rig = new Rig(Mapped.identity(), features);
        List<Integer> flags = new ArrayList<>();
        // A device writes them as soon as it starts.
        rig.onStart = () -> flags.add(RingMemory.get16(rig.driver.layout().deviceArea()));
        rig.start(SIZE);
        RingMemory.set16(rig.driver.layout().deviceArea(), 1);
        rig.driver.reset(token -> {});
        RingMemory.set16(rig.driver.layout().deviceArea(), 1);
        rig.driver.resize(SIZE * 2, token -> {});
        assertEquals(List.of(0, 0, 0), flags);
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-SPLIT-019")
    @Tag("DEV-SPLIT-007")
    void withoutEventIdxEventsAreIgnored(Features features) throws Exception {
        assumeFalse(features.has(Feature.EVENT_IDX), "EVENT_IDX is negotiated");
        start(features, SIZE);
        QueueLayout layout = rig.driver.layout();
        long availEvent = layout.deviceArea() + SplitRing.availEvent(SIZE);
        long usedEvent = layout.driverArea() + SplitRing.usedEvent(SIZE);
        for (int i = 0; i < 20; i++) {
            if (split(features)) {
                // Far from where either end is.
                RingMemory.set16(availEvent, i + 0x4000);
                RingMemory.set16(usedEvent, i + 0x4000);
            } else {
                // A descriptor is named that is not next, which has no meaning for either end.
                RingMemory.setOpaque32(layout.deviceArea(), PackedRing.DESC << 16 | 7);
                RingMemory.setOpaque32(layout.driverArea(), PackedRing.DESC << 16 | 7);
            }
            assertTrue(addOne(i));
            assertTrue(rig.driver.kickPrepare(), "notification " + i);
            useAll();
            assertEquals(i + 1, rig.interrupts);
            assertEquals(i, rig.driver.get());
        }
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DEV-SPLIT-020")
    void notificationsWithoutBuffersDoNoHarm(Features features) throws Exception {
        start(features, SIZE);
        OneBackend backend = new OneBackend(queue -> useAll());
        for (int i = 0; i < 50; i++) {
            rig.device.serve(backend);
            assertEquals(i, rig.interrupts);
            assertTrue(addOne(i));
            assertTrue(rig.driver.kickPrepare());
            rig.device.serve(backend);
            rig.device.serve(backend);
            assertEquals(i + 1, rig.interrupts);
            assertEquals(i, rig.driver.get());
            assertEquals(Virtqueue.NONE, rig.driver.get());
        }
        assertNull(rig.device.broken());
    }

    /** Whatever the driver does next, what it has exposed stays as it is. */
    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-CORE-024")
    @Tag("DRV-PACKED-003")
    void exposedDescriptorsAreNotAltered(Features features) throws Exception {
        start(features, SIZE);
        assertTrue(addTwo(1));
        int held = SIZE - rig.driver.free();
        List<Integer> ours = new ArrayList<>();
        for (int i = 0; i < SIZE; i++) {
            if (RingMemory.get64(rig.driver.layout().descriptorArea() + 16L * i) != 0) {
                ours.add(i);
            }
        }
        assertEquals(held, ours.size());
        rig.driver.kick();
        List<byte[]> before = exposed(ours);
        rig.driver.disableCallback();
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertTrue(rig.driver.enableCallback());
        assertTrue(rig.driver.enableCallbackDelayed());
        for (int i = 0; addOne(i); i++) {
            rig.driver.kick();
        }
        assertUnchanged(before, exposed(ours));
        if (split(features)) {
            // Others come and go in the descriptors that are left.
            assertTrue(rig.device.next(chain));
            Chain other = rig.device.newChain();
            for (int i = 0; i < 100; i++) {
                while (rig.device.next(other)) {
                    rig.device.complete(other, 0);
                }
                while (rig.driver.get() != Virtqueue.NONE) {}
                while (addOne(i)) {}
                rig.driver.kick();
            }
            assertUnchanged(before, exposed(ours));
            rig.device.complete(chain, 0);
        }
    }

    private List<byte[]> exposed(List<Integer> descriptors) {
        List<byte[]> all = new ArrayList<>();
        for (int i : descriptors) {
            all.add(bytes(rig.driver.layout().descriptorArea() + 16L * i, 16));
            all.add(table(i));
        }
        return all;
    }

    private static void assertUnchanged(List<byte[]> before, List<byte[]> now) {
        for (int i = 0; i < before.size(); i++) {
            assertArrayEquals(before.get(i), now.get(i), "exposed memory " + i);
        }
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DEV-SPLIT-004")
    void theDeviceWritesItsOwnAreaOnly(Features features) throws Exception {
        assumeTrue(split(features), "a packed ring's descriptors are written by both ends");
        start(features, SIZE);
        for (int lap = 0; lap < 5; lap++) {
            while (addTwo(lap)) {}
            rig.driver.kick();
            byte[] descriptors = descriptors();
            byte[] available = availableRing();
            byte[][] tables = tables();
            rig.device.serve(new OneBackend(queue -> useAll()));
            assertArrayEquals(descriptors, descriptors());
            assertArrayEquals(available, availableRing());
            assertArrayEquals(tables, tables());
            while (rig.driver.get() != Virtqueue.NONE) {}
            assertEquals(SIZE, rig.driver.free());
        }
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DEV-PACKED-002")
    @Tag("DEV-PACKED-006")
    void usedDescriptorsComeInOrderOfCompletionAndStay(Features features) throws Exception {
        assumeFalse(split(features), "a split ring has a used ring");
        assumeFalse(features.has(Feature.IN_ORDER), "completions wait for their turn");
        start(features, SIZE);
        List<Chain> taken = new ArrayList<>();
        for (int i = 0; i < SIZE; i++) {
            assertTrue(addOne(i));
            rig.driver.kick();
            taken.add(rig.device.newChain());
            assertTrue(rig.device.next(taken.getLast()));
        }
        int[] order = {5, 2, 7, 0, 1, 6, 3, 4};
        byte[] before = new byte[0];
        for (int done = 1; done <= SIZE; done++) {
            rig.device.complete(taken.get(order[done - 1]), 0);
            rig.device.notifyDriver();
            long ring = rig.driver.layout().descriptorArea();
            assertArrayEquals(before, bytes(ring, before.length), "used before");
            before = bytes(ring, (long) Descriptor.BYTES * done);
            int flags = RingMemory.get16(ring + 16L * done - 2);
            assertEquals(PackedRing.AVAIL | PackedRing.USED, flags & 0x8080, "slot " + done);
        }
        for (int expected : order) {
            assertEquals(expected, rig.driver.get());
        }
        assertArrayEquals(before, descriptors());
    }

    /** A list is not begun in the hope that the device makes room for its end. */
    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-PACKED-009")
    @Tag("DRV-PACKED-010")
    void aBufferThatDoesNotFitLeavesTheRingAsItIs(Features features) throws Exception {
        assumeFalse(features.has(Feature.INDIRECT_DESC), "one descriptor is enough for a table");
        start(features, SIZE);
        for (int i = 0; i < SIZE - 1; i++) {
            assertTrue(addOne(i));
        }
        byte[] before = descriptors();
        assertFalse(addTwo(99));
        assertArrayEquals(before, descriptors());
        assertEquals(1, rig.driver.free());
        rig.driver.kick();
        int taken = 0;
        while (rig.device.next(chain)) {
            rig.device.complete(chain, 0);
            taken++;
        }
        assertEquals(SIZE - 1, taken);
        assertNull(rig.device.broken());
    }
}
