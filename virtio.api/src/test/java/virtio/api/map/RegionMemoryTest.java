package virtio.api.map;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

class RegionMemoryTest {
    private static final long APART = 1L << 32;
    private static final long BOUNCE = 2 * 4096;
    private static final int SLOTS = 2;
    private final Arena arena = Arena.ofShared();
    private final List<String> unmapped = new ArrayList<>();
    private final MapOps ops = new RegionMapOps() {};

    /** With regions at 1, 2, ... times {@link #APART}, and further ones as it grows. */
    private final class Regions extends RegionMemory {
        private final int most;
        private int count;

        Regions(int initial, int most) {
            super(
                    IntStream.range(0, initial)
                            .mapToObj(i -> region(i, 4 * 4096, BOUNCE))
                            .toArray(RegionPool[]::new));
            count = initial;
            this.most = most;
        }

        @Override
        protected RegionPool grow(long size) {
            return count == most ? null : region(count++, size + 4096, 4096);
        }

        @Override
        protected void unmap(RegionPool region, int left) {
            unmapped.add(region.handleBase() / APART + " left " + left);
        }
    }

    private RegionPool region(int index, long bytes, long bounceBytes) {
        return new RegionPool(arena.allocate(bytes, 4096), (index + 1) * APART, bounceBytes);
    }

    @AfterEach
    void close() {
        arena.close();
    }

    private long map(RegionMemory memory, MemorySegment page) {
        return ops.mapPage(memory, page, 0, page.byteSize(), Direction.BIDIRECTIONAL, 0);
    }

    private void unmap(RegionMemory memory, long mapHandle, long size) {
        ops.unmapPage(memory, mapHandle, size, Direction.BIDIRECTIONAL, 0);
    }

    @Test
    void foreignBuffersAreBouncedWhereverThereIsRoom() {
        RegionMemory memory = new Regions(3, 3);
        MemorySegment page = MemorySegment.ofArray(new byte[4096]);
        List<Long> handles = new ArrayList<>();
        for (int i = 0; i < 3 * SLOTS; i++) {
            long handle = map(memory, page);
            assertFalse(ops.mappingError(memory, handle), "mapping " + i);
            assertTrue(ops.needSync(memory, handle));
            handles.add(handle);
        }
        assertEquals(3 * SLOTS, handles.stream().distinct().count());
        assertTrue(ops.mappingError(memory, map(memory, page)));
        unmap(memory, handles.removeFirst(), 4096);
        handles.addFirst(map(memory, page));
        assertFalse(ops.mappingError(memory, handles.getFirst()), "the first region again");
        page.fill((byte) 1);
        for (long handle : handles) {
            ops.syncSingleForDevice(memory, handle, 4096, Direction.BIDIRECTIONAL);
            page.fill((byte) 0);
            ops.syncSingleForCpu(memory, handle, 4096, Direction.BIDIRECTIONAL);
            assertEquals(1, page.get(ValueLayout.JAVA_BYTE, 4095));
            unmap(memory, handle, 4096);
        }
        memory.release();
        assertEquals(List.of("1 left 2", "2 left 1", "3 left 0"), unmapped);
    }

    @Test
    void whatLiesInAnyRegionIsMappedWhereItIsAtAnySize() {
        RegionMemory memory = new Regions(1, 3);
        CoherentMemory first = ops.alloc(memory, 4096);
        CoherentMemory large = ops.alloc(memory, 10 * BOUNCE);
        assertEquals(2 * APART + 4096, large.mapHandle());
        for (CoherentMemory each : List.of(first, large)) {
            assertEquals(each.mapHandle(), map(memory, each.segment()));
            assertFalse(ops.needSync(memory, each.mapHandle()));
            unmap(memory, each.mapHandle(), each.segment().byteSize());
            ops.free(memory, each);
        }
        memory.release();
    }

    @Test
    void aGrownRegionBouncesNothing() {
        RegionMemory memory = new Regions(1, 2);
        ops.free(memory, ops.alloc(memory, 1 << 20));
        MemorySegment page = MemorySegment.ofArray(new byte[4096]);
        for (int i = 0; i < SLOTS; i++) {
            assertFalse(ops.mappingError(memory, map(memory, page)));
        }
        assertTrue(ops.mappingError(memory, map(memory, page)));
        assertEquals(BOUNCE, ops.maxMappingSize(memory));
    }

    @Test
    void noRoomIsNullAndTooLargeIsRefusedByNumber() {
        RegionMemory memory = new Regions(2, 2);
        assertNull(ops.alloc(memory, 3 * 4096));
        IllegalArgumentException e =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> map(memory, MemorySegment.ofArray(new byte[(int) BOUNCE + 1])));
        assertTrue(e.getMessage().contains("" + (BOUNCE + 1)), e.getMessage());
        assertTrue(e.getMessage().contains("" + BOUNCE), e.getMessage());
        assertThrows(
                IllegalArgumentException.class,
                () -> map(memory, MemorySegment.ofArray(new byte[0])));
    }

    @Test
    void aHandleOfNoRegionIsRefused() {
        RegionMemory memory = new Regions(2, 2);
        for (long handle : new long[] {0, APART - 1, 2 * APART - 1, 2 * APART + 4 * 4096}) {
            assertThrows(IllegalArgumentException.class, () -> ops.needSync(memory, handle));
            assertThrows(IllegalArgumentException.class, () -> unmap(memory, handle, 1));
            assertThrows(
                    IllegalArgumentException.class,
                    () -> ops.free(memory, new CoherentMemory(MemorySegment.NULL, handle)));
        }
    }

    @Test
    void eachRegionIsUnmappedWithTheLastThingInItWhenNobodyHoldsTheMemory() {
        RegionMemory memory = new Regions(1, 2);
        MemorySegment page = MemorySegment.ofArray(new byte[100]);
        long bounced = map(memory, page);
        CoherentMemory first = ops.alloc(memory, 4096);
        CoherentMemory second = ops.alloc(memory, 1 << 20);
        memory.hold();
        memory.release();
        CoherentMemory third = ops.alloc(memory, 4096);
        assertNotNull(third, "still held");
        memory.release();
        assertTrue(ops.mappingError(memory, map(memory, page)));
        assertNull(ops.alloc(memory, 1));
        unmap(memory, bounced, 100);
        ops.free(memory, first);
        assertEquals(List.of(), unmapped);
        ops.free(memory, second);
        assertEquals(List.of("2 left 1"), unmapped);
        unmap(memory, first.mapHandle(), 10);
        ops.free(memory, third);
        assertEquals(List.of("2 left 1", "1 left 0"), unmapped);
    }
}
