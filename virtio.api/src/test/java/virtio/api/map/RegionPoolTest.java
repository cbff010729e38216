package virtio.api.map;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
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
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;

class RegionPoolTest {
    private static final long BASE = 0x10_0000_0000L;
    private static final long BOUNCE = 128 * 4096;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment region = arena.allocate(1 << 20, 4096);
    private final RegionPool pool = new RegionPool(region, BASE, BOUNCE);

    @AfterEach
    void nothingIsLeft() {
        assertEquals(0, pool.live());
        arena.close();
    }

    private MemorySegment seenByDevice(long handle, long size) {
        return region.asSlice(handle - BASE, size);
    }

    private static byte[] pattern(int size, int seed) {
        byte[] bytes = new byte[size];
        new Random(seed).nextBytes(bytes);
        return bytes;
    }

    @Test
    void heapArrayIsBouncedBothWays() {
        byte[] bytes = pattern(5000, 1);
        MemorySegment page = MemorySegment.ofArray(bytes);
        long handle = pool.map(page, 100, 4500, Direction.BIDIRECTIONAL, 0);
        byte[] device = seenByDevice(handle, 4500).toArray(ValueLayout.JAVA_BYTE);
        assertArrayEquals(page.asSlice(100, 4500).toArray(ValueLayout.JAVA_BYTE), device);
        byte[] answer = pattern(4500, 2);
        MemorySegment.copy(answer, 0, seenByDevice(handle, 4500), ValueLayout.JAVA_BYTE, 0, 4500);
        pool.unmap(handle, 4500, Direction.BIDIRECTIONAL, 0);
        assertArrayEquals(answer, page.asSlice(100, 4500).toArray(ValueLayout.JAVA_BYTE));
        assertEquals(pattern(5000, 1)[99], bytes[99]);
        assertEquals(pattern(5000, 1)[4600], bytes[4600]);
    }

    @Test
    void aQuarterInPagesIsForBouncingWhereNobodySays() {
        MemorySegment odd = arena.allocate(23 * 4096, 4096);
        RegionPool quarter = new RegionPool(odd, BASE);
        CoherentMemory rest = quarter.alloc(18 * 4096);
        assertEquals(BASE + 5 * 4096, rest.mapHandle());
        assertNull(quarter.alloc(4096));
        quarter.free(rest);
        assertThrows(
                IllegalArgumentException.class,
                () -> new RegionPool(arena.allocate(3 * 4096, 4096), BASE));
    }

    @Test
    void directionIsHonoured() {
        byte[] secret = pattern(4096, 3);
        long in = pool.map(MemorySegment.ofArray(secret), 0, 4096, Direction.FROM_DEVICE, 0);
        assertEquals(-1, seenByDevice(in, 4096).mismatch(MemorySegment.ofArray(new byte[4096])));
        pool.unmap(in, 4096, Direction.FROM_DEVICE, 0);

        byte[] data = pattern(100, 4);
        long out = pool.map(MemorySegment.ofArray(data), 0, 100, Direction.TO_DEVICE, 0);
        seenByDevice(out, 100).fill((byte) 7);
        pool.unmap(out, 100, Direction.TO_DEVICE, 0);
        assertArrayEquals(pattern(100, 4), data);
    }

    @Test
    void slotsAreClearedBeforeTheDeviceSeesThem() {
        byte[] secret = pattern(4096, 5);
        long first = pool.map(MemorySegment.ofArray(secret), 0, 4096, Direction.TO_DEVICE, 0);
        pool.unmap(first, 4096, Direction.TO_DEVICE, 0);
        long second = pool.map(MemorySegment.ofArray(new byte[] {1}), 0, 1, Direction.TO_DEVICE, 0);
        assertEquals(first, second);
        byte[] expected = new byte[4096];
        expected[0] = 1;
        assertEquals(-1, seenByDevice(second, 4096).mismatch(MemorySegment.ofArray(expected)));
        pool.unmap(second, 1, Direction.TO_DEVICE, 0);
    }

    @Test
    void coherentMemoryIsMappedWhereItIs() {
        CoherentMemory memory = pool.alloc(10_000);
        long handle = pool.map(memory.segment(), 5000, 16, Direction.FROM_DEVICE, 0);
        assertEquals(memory.mapHandle() + 5000, handle);
        assertTrue(pool.contains(memory.segment()));
        pool.unmap(handle, 16, Direction.FROM_DEVICE, 0);
        pool.free(memory);
        assertThrows(IllegalArgumentException.class, () -> pool.free(memory));
    }

    @Test
    void rangesAreSynchronised() {
        byte[] bytes = new byte[9000];
        MemorySegment page = MemorySegment.ofArray(bytes);
        long handle = pool.map(page, 0, 9000, Direction.BIDIRECTIONAL, 0);
        seenByDevice(handle + 8000, 1).set(ValueLayout.JAVA_BYTE, 0, (byte) 9);
        pool.syncForCpu(handle + 7999, 3, Direction.FROM_DEVICE);
        assertEquals(9, bytes[8000]);
        bytes[4100] = 5;
        pool.syncForDevice(handle + 4100, 1, Direction.TO_DEVICE);
        assertEquals(5, seenByDevice(handle + 4100, 1).get(ValueLayout.JAVA_BYTE, 0));
        assertThrows(
                IllegalArgumentException.class,
                () -> pool.syncForCpu(handle + 8999, 2, Direction.FROM_DEVICE));
        pool.unmap(handle, 9000, Direction.BIDIRECTIONAL, 0);
    }

    @Test
    void fullIsAValueAndTooLargeIsRefusedByNumber() {
        long max = pool.maxMappingSize();
        MemorySegment page = MemorySegment.ofArray(new byte[(int) max + 1]);
        var tooLarge =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> pool.map(page, 0, max + 1, Direction.TO_DEVICE, 0));
        assertTrue(tooLarge.getMessage().contains(Long.toString(max)), tooLarge.getMessage());
        long one = pool.map(page, 0, max, Direction.TO_DEVICE, 0);
        long two = pool.map(page, 0, max, Direction.TO_DEVICE, 0);
        assertNotEquals(MapOps.MAPPING_ERROR, two);
        assertEquals(MapOps.MAPPING_ERROR, pool.map(page, 0, 1, Direction.TO_DEVICE, 0));
        pool.unmap(one, max, Direction.TO_DEVICE, 0);
        pool.unmap(two, max, Direction.TO_DEVICE, 0);
        assertNull(pool.alloc(1 << 20));
    }

    @Test
    void segmentThatCannotBeReadTakesNoSlots() {
        Arena closed = Arena.ofConfined();
        MemorySegment page = closed.allocate(3 * 4096);
        closed.close();
        for (int i = 0; i < 128; i++) {
            assertThrows(
                    IllegalStateException.class,
                    () -> pool.map(page, 0, 3 * 4096, Direction.TO_DEVICE, 0));
        }
        assertEquals(0, pool.live());
        MemorySegment all = MemorySegment.ofArray(new byte[64 * 4096]);
        long one = pool.map(all, 0, 64 * 4096, Direction.TO_DEVICE, 0);
        long two = pool.map(all, 0, 64 * 4096, Direction.TO_DEVICE, 0);
        assertNotEquals(MapOps.MAPPING_ERROR, one);
        assertNotEquals(MapOps.MAPPING_ERROR, two);
        pool.unmap(one, 64 * 4096, Direction.TO_DEVICE, 0);
        pool.unmap(two, 64 * 4096, Direction.TO_DEVICE, 0);
    }

    @Test
    void whatCannotBeCopiedBackIsLostWithoutAnException() throws InterruptedException {
        Arena shared = Arena.ofShared();
        MemorySegment page = shared.allocate(5000);
        long handle = pool.map(page, 0, 5000, Direction.FROM_DEVICE, 0);
        shared.close();
        pool.unmap(handle, 5000, Direction.FROM_DEVICE, 0);
        try (Arena confined = Arena.ofConfined()) {
            MemorySegment own = confined.allocate(100);
            long other = pool.map(own, 0, 100, Direction.FROM_DEVICE, 0);
            seenByDevice(other, 100).fill((byte) 1);
            AtomicReference<Throwable> thrown = new AtomicReference<>();
            Thread.ofPlatform()
                    .uncaughtExceptionHandler((t, e) -> thrown.set(e))
                    .start(() -> pool.unmap(other, 100, Direction.FROM_DEVICE, 0))
                    .join();
            assertNull(thrown.get());
            assertEquals(0, own.get(ValueLayout.JAVA_BYTE, 0));
        }
    }

    @Test
    void whatIsLargerThanTheRegionHasNoRoom() {
        for (long size : new long[] {(1 << 20) + 1, Long.MAX_VALUE - 4095, Long.MAX_VALUE}) {
            assertNull(pool.alloc(size));
        }
        CoherentMemory all = pool.alloc((1 << 20) - BOUNCE);
        pool.free(all);
    }

    @Test
    void randomUseNeitherLeaksNorFragments() {
        Random random = new Random(6);
        MemorySegment page = MemorySegment.ofArray(new byte[1 << 16]);
        List<long[]> mapped = new ArrayList<>();
        List<CoherentMemory> allocated = new ArrayList<>();
        for (int i = 0; i < 200_000; i++) {
            if (random.nextInt(16) == 0) {
                if (random.nextBoolean() && !allocated.isEmpty()) {
                    pool.free(allocated.remove(random.nextInt(allocated.size())));
                } else {
                    CoherentMemory memory = pool.alloc(1 + random.nextInt(50_000));
                    if (memory != null) {
                        allocated.add(memory);
                    }
                }
            } else if (random.nextBoolean() && !mapped.isEmpty()) {
                long[] one = mapped.remove(random.nextInt(mapped.size()));
                pool.unmap(one[0], one[1], Direction.FROM_DEVICE, MapOps.SKIP_CPU_SYNC);
            } else {
                long size = 1 + random.nextInt(1 << 16);
                long handle = pool.map(page, 0, size, Direction.FROM_DEVICE, MapOps.SKIP_CPU_SYNC);
                if (handle != MapOps.MAPPING_ERROR) {
                    mapped.add(new long[] {handle, size});
                }
            }
        }
        mapped.forEach(one -> pool.unmap(one[0], one[1], Direction.TO_DEVICE, 0));
        allocated.forEach(pool::free);
        CoherentMemory all = pool.alloc((1 << 20) - BOUNCE);
        assertEquals(BASE + BOUNCE, all.mapHandle());
        pool.free(all);
    }

    @Test
    void twoThreadsNeverShareASlot() throws InterruptedException {
        AtomicReference<Throwable> failure = new AtomicReference<>();
        Runnable work =
                () -> {
                    Random random = new Random(Thread.currentThread().threadId());
                    for (int i = 0; i < 20_000 && failure.get() == null; i++) {
                        byte[] bytes = pattern(1 + random.nextInt(9000), i);
                        byte[] copy = bytes.clone();
                        MemorySegment page = MemorySegment.ofArray(bytes);
                        long handle = pool.map(page, 0, copy.length, Direction.BIDIRECTIONAL, 0);
                        pool.unmap(handle, copy.length, Direction.BIDIRECTIONAL, 0);
                        assertArrayEquals(copy, bytes);
                    }
                };
        List<Thread> threads =
                List.of(
                        Thread.ofPlatform()
                                .uncaughtExceptionHandler((t, e) -> failure.set(e))
                                .start(work),
                        Thread.ofPlatform()
                                .uncaughtExceptionHandler((t, e) -> failure.set(e))
                                .start(work));
        for (Thread thread : threads) {
            thread.join();
        }
        assertNull(failure.get());
    }
}
