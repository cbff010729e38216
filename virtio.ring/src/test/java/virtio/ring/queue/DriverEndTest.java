package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.backend.Chain;
import virtio.api.map.CoherentMemory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** The driver's end by itself: misuse, lack of room, reset and resize. */
class DriverEndTest {
    private final Arena arena = Arena.ofShared();
    private final MemorySegment buffer = arena.allocate(1 << 20, 8);
    private final ScatterList list = new ScatterList(2000);
    private Rig rig;

    static Iterable<Features> features() {
        return EndToEndTest.rings();
    }

    private void start(Features features, int size) throws Exception {
        rig = EndToEndTest.rig("bounce", features).start(size);
    }

    @AfterEach
    void stop() {
        rig.close();
        arena.close();
    }

    private static void refused(String sentence, Runnable call) {
        assertEquals(
                sentence, assertThrows(IllegalArgumentException.class, call::run).getMessage());
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-SPLIT-004")
    @Tag("DRV-SPLIT-008")
    @Tag("DRV-PACKED-006")
    @Tag("DRV-PACKED-007")
    @Tag("DRV-PACKED-014")
    void misuseNamesValueAndLimit(Features features) throws Exception {
        start(features, 4);
        boolean indirect = features.has(Feature.INDIRECT_DESC);
        int most = indirect ? 1024 : 4;
        assertEquals(most, rig.driver.maxElements());
        refused(
                "queue 0 (test): buffer of 0 elements, limits are 1 and " + most,
                () -> rig.driver.add(list.clear(), 0));
        list.clear();
        for (int i = 0; i <= most; i++) {
            list.out(buffer, i, 1);
        }
        refused(
                "queue 0 (test): buffer of %d elements, limits are 1 and %d"
                        .formatted(most + 1, most),
                () -> rig.driver.add(list, 0));
        refused(
                "queue 0 (test): token -9223372036854775808 is reserved for none",
                () -> rig.driver.add(list.clear().out(buffer, 0, 1), Virtqueue.NONE));
        refused(
                "queue 0 (test): element of 262145 bytes, the mapping's limit is 262144",
                () -> rig.driver.add(list.clear().out(buffer, 0, 262145), 0));
        refused(
                "queue 0 (test): premapped handle 0x0 was never handed out",
                () -> rig.driver.add(list.clear().inMapped(0, 1), 0));
        refused(
                "queue 0 (test): buffer of 6442450941 bytes, the limit is 4294967296",
                () ->
                        rig.driver.add(
                                list.clear()
                                        .inMapped(4096, Integer.MAX_VALUE)
                                        .inMapped(4096, Integer.MAX_VALUE)
                                        .inMapped(4096, Integer.MAX_VALUE),
                                0));
        assertEquals(4, rig.driver.free());
        assertNull(rig.driver.broken());
    }

    /** With good ones before the bad one, of which the device may not see anything. */
    @ParameterizedTest
    @MethodSource("features")
    void noneOfABurstIsAddedWhenOneNeverFits(Features features) throws Exception {
        start(features, 4);
        CoherentMemory memory = rig.mapped.mapping().alloc(64);
        long good = memory.mapHandle();
        long[] tokens = {1, 2};
        int[] lengths = {8, 8};
        refused(
                "queue 0 (test): premapped handle 0x0 was never handed out",
                () -> rig.driver.addInMapped(new long[] {good, 0}, lengths, tokens, 2));
        refused(
                "queue 0 (test): premapped handle 0xffffffffffffffff was never handed out",
                () -> rig.driver.addOutMapped(new long[] {good, -1}, lengths, tokens, 2));
        long[] handles = {good, good};
        refused(
                "queue 0 (test): buffer of 0 bytes, the least is 1",
                () -> rig.driver.addOutMapped(handles, new int[] {8, 0}, tokens, 2));
        refused(
                "queue 0 (test): buffer of -8 bytes, the least is 1",
                () -> rig.driver.addInMapped(handles, new int[] {8, -8}, tokens, 2));
        refused(
                "queue 0 (test): token -9223372036854775808 is reserved for none",
                () -> rig.driver.addInMapped(handles, lengths, new long[] {1, Virtqueue.NONE}, 2));
        refused(
                "queue 0 (test): -1 buffers, the least is 0",
                () -> rig.driver.addInMapped(handles, lengths, tokens, -1));
        assertThrows(
                IndexOutOfBoundsException.class,
                () -> rig.driver.addOutMapped(handles, new int[1], tokens, 2));
        assertEquals(4, rig.driver.free());
        assertEquals(1, rig.driver.addOutMapped(handles, lengths, tokens, 1));
        rig.driver.kick();
        Chain chain = rig.device.newChain();
        assertTrue(rig.device.next(chain));
        assertFalse(rig.device.next(rig.device.newChain()));
        rig.device.complete(chain, 0);
        assertEquals(1, rig.driver.get());
        rig.driver.fail("gone");
        assertEquals(0, rig.driver.addOutMapped(handles, lengths, tokens, 1));
        rig.mapped.mapping().free(memory);
    }

    @ParameterizedTest
    @MethodSource("features")
    void fullIsAReturnValue(Features features) throws Exception {
        start(features, 4);
        boolean indirect = features.has(Feature.INDIRECT_DESC);
        boolean packed = features.has(Feature.RING_PACKED);
        list.clear().out(buffer, 0, 8).in(buffer, 8, 8);
        // The first one of a split ring leaves half of it free, so that it needs no table.
        int fit = indirect ? packed ? 4 : 3 : 2;
        for (int i = 0; i < fit; i++) {
            assertTrue(rig.driver.add(list, i));
        }
        assertEquals(0, rig.driver.free());
        assertFalse(rig.driver.add(list, 9));
        assertFalse(rig.driver.add(list.clear().out(buffer, 0, 1), 9));
        rig.driver.kick();
        Chain chain = rig.device.newChain();
        assertTrue(rig.device.next(chain));
        rig.device.complete(chain, 0);
        assertEquals(0, rig.driver.get());
        assertTrue(rig.driver.add(list, 9));
    }

    @ParameterizedTest
    @MethodSource("features")
    void aMappingThatFailsHalfWayIsUndone(Features features) throws Exception {
        start(features, 64);
        int live = -1;
        // 16 MiB of bounce memory take 64 elements of 256 KiB: 21 buffers of 3, and no 22nd.
        int added = 0;
        list.clear();
        for (int i = 0; i < 3; i++) {
            list.in(buffer, 262144L * i, 262144);
        }
        while (rig.driver.add(list, added)) {
            added++;
            live = rig.mapped.live().getAsInt();
        }
        assertEquals(21, added);
        assertEquals(live, rig.mapped.live().getAsInt());
        assertTrue(rig.driver.add(list.clear().in(buffer, 0, 8), 99), "one more element fits");
        rig.driver.kick();
        Chain chain = rig.device.newChain();
        while (rig.device.next(chain)) {
            rig.device.complete(chain, 8);
        }
        for (int i = 0; i < 21; i++) {
            assertEquals(i, rig.driver.get());
        }
        assertEquals(99, rig.driver.get());
        assertEquals(64, rig.driver.free());
    }

    @ParameterizedTest
    @MethodSource("features")
    void aMappingThatThrowsIsUndone(Features features) throws Exception {
        start(features, 64);
        rig.driver.add(list.clear().out(buffer, 0, 8).out(buffer, 8, 8), 0);
        int live = rig.mapped.live().getAsInt();
        Arena dead = Arena.ofConfined();
        MemorySegment gone = dead.allocate(8);
        list.clear().out(buffer, 0, 8).out(gone, 0, 8);
        dead.close();
        assertThrows(IllegalStateException.class, () -> rig.driver.add(list, 1));
        assertEquals(live, rig.mapped.live().getAsInt());
    }

    @ParameterizedTest
    @MethodSource("features")
    void premappedElementsAreLeftAlone(Features features) throws Exception {
        start(features, 8);
        long handle = rig.mapped.mapping().map(buffer, 0, 64, virtio.api.map.Direction.FROM_DEVICE);
        rig.driver.add(list.clear().inMapped(handle, 32).inMapped(handle + 32, 32), 1);
        rig.driver.add(list.clear().inMapped(handle, 8).in(buffer, 4096, 8), 2);
        rig.driver.kick();
        Chain chain = rig.device.newChain();
        while (rig.device.next(chain)) {
            chain.write8(0, 7);
            rig.device.complete(chain, 1);
        }
        int live = rig.mapped.live().getAsInt();
        assertEquals(1, rig.driver.get());
        assertEquals(2, rig.driver.get());
        assertEquals(live - 1, rig.mapped.live().getAsInt());
        rig.mapped.mapping().unmap(handle, 64, virtio.api.map.Direction.FROM_DEVICE);
        assertEquals(7, buffer.get(java.lang.foreign.ValueLayout.JAVA_BYTE, 0));
    }

    @ParameterizedTest
    @MethodSource("features")
    @Tag("DRV-CORE-015")
    @Tag("DRV-CORE-016")
    @Tag("DRV-CORE-017")
    @Tag("DEV-CORE-012")
    @Tag("DEV-CORE-013")
    void resetAndResizeGiveBackWhatTheDeviceHeld(Features features) throws Exception {
        start(features, 8);
        long[] sizes = {8, 32, 4};
        for (long size : sizes) {
            for (int i = 0; i < 3; i++) {
                rig.driver.add(list.clear().out(buffer, 0, 8), 10 + i);
            }
            rig.driver.kick();
            Chain chain = rig.device.newChain();
            assertTrue(rig.device.next(chain));
            rig.device.complete(chain, 0);
            assertEquals(10, rig.driver.get());
            List<Long> recycled = new ArrayList<>();
            if (size == rig.driver.size()) {
                rig.driver.reset(recycled::add);
            } else {
                rig.driver.resize((int) size, recycled::add);
            }
            recycled.sort(null);
            assertEquals(List.of(11L, 12L), recycled);
            assertEquals(size, rig.driver.size());
            assertEquals(size, rig.driver.free());
            assertEquals(Virtqueue.NONE, rig.driver.get());
            assertFalse(rig.device.next(rig.device.newChain()));
        }
        assertEquals(9, rig.driver.snapshot().added());
        assertEquals(3, rig.driver.snapshot().used());
        rig.maxQueueSize = 16;
        assertThrows(IllegalArgumentException.class, () -> rig.driver.resize(32, t -> {}));
        rig.canStop = false;
        assertThrows(VirtioException.class, () -> rig.driver.reset(t -> {}));
        assertNull(rig.driver.broken());
        rig.driver.close();
        assertThrows(VirtioException.class, () -> rig.driver.reset(t -> {}));
        assertEquals("queue 0 (test) is closed", rig.driver.broken());
        assertFalse(rig.driver.add(list.clear().out(buffer, 0, 8), 1));
        assertEquals(Virtqueue.NONE, rig.driver.get());
        assertEquals(0, rig.driver.get(new long[1], new int[1]));
        assertEquals(Virtqueue.NONE, rig.driver.detachUnused());
        assertFalse(rig.driver.poll(rig.driver.enableCallbackPrepare()));
        rig.driver.enableCallback();
        rig.driver.enableCallbackDelayed();
        rig.driver.disableCallback();
        rig.driver.interrupted();
        assertFalse(rig.driver.kickPrepare());
        assertEquals("queue 0 (test) is closed", rig.driver.snapshot().broken());
        assertEquals(0, rig.mapped.live().getAsInt());
    }

    @ParameterizedTest
    @MethodSource("features")
    void resetNeedsItsFeature(Features features) throws Exception {
        start(features.without(Feature.RING_RESET), 8);
        assertEquals(
                "queue 0 (test) cannot be reset alone: RING_RESET is not negotiated",
                assertThrows(VirtioException.class, () -> rig.driver.reset(t -> {})).getMessage());
    }

    @ParameterizedTest
    @MethodSource("features")
    void lackOfMemoryIsAnError(Features features) throws Exception {
        start(features, 8);
        List<virtio.api.map.CoherentMemory> all = new ArrayList<>();
        for (long size = 1 << 24; size >= 4096; size /= 2) {
            for (virtio.api.map.CoherentMemory m;
                    (m = rig.mapped.mapping().alloc(size)) != null; ) {
                all.add(m);
            }
        }
        VirtioException e =
                assertThrows(VirtioException.class, () -> rig.driver.resize(1024, t -> {}));
        assertTrue(e.getMessage().contains("no memory that the device sees"), e.getMessage());
        assertNull(rig.driver.broken(), "goes on as it was");
        assertEquals(8, rig.driver.size());
        // Without a table for it, an indirect buffer is a direct one.
        list.clear();
        for (int i = 0; i < 5; i++) {
            list.out(buffer, 0, 8);
        }
        assertTrue(rig.driver.add(list, 1));
        assertEquals(3, rig.driver.free());
        rig.driver.kick();
        Chain chain = rig.device.newChain();
        assertTrue(rig.device.next(chain));
        rig.device.complete(chain, 0);
        assertEquals(1, rig.driver.get());
        assertEquals(8, rig.driver.free());
        all.forEach(rig.mapped.mapping()::free);
    }
}
