package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentLinkedQueue;

/** How map operations hold out: exhaustion, a million random mappings, several threads. */
public abstract class MapOpsLoadContract extends Contract {
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;
    private static final int MILLION = 1_000_000;

    /** Beyond that many bytes mapped at once, operations count as without a limit. */
    private static final long UNLIMITED_BYTES = 1L << 32;

    private Driven driven;
    private DeviceMapping mapping;

    /** For subclasses. */
    protected MapOpsLoadContract() {}

    @BeforeEach
    void open() throws Exception {
        driven = drive(new TestDevice(1, 0)).run(0);
        mapping = driven.mapping;
    }

    /** How many mappings of a size go at once; -1 when there is no end. */
    private int capacity(MemorySegment segment) {
        long size = segment.byteSize();
        List<Long> handles = new ArrayList<>();
        long handle;
        while (!mapping.error(handle = mapping.map(segment, 0, size, Direction.TO_DEVICE))) {
            handles.add(handle);
            if (handles.size() * size > UNLIMITED_BYTES) {
                break;
            }
        }
        int count = mapping.error(handle) ? handles.size() : -1;
        handles.forEach(taken -> mapping.unmap(taken, size, Direction.TO_DEVICE));
        return count;
    }

    private MemorySegment largest() {
        return MemorySegment.ofArray(new byte[(int) Math.min(mapping.maxMappingSize(), 1 << 20)]);
    }

    @Test
    void exhaustionIsAnErrorValueAndPasses() {
        MemorySegment segment = largest();
        int first = capacity(segment);
        Assumptions.assumeTrue(first >= 0, "mappings are without limit");
        assertTrue(first > 0, "not one mapping of " + segment.byteSize());
        assertEquals(first, capacity(segment), "after all was unmapped");
    }

    @Test
    void exhaustedMappingsStillAllowCoherentOnesToBeMapped() {
        CoherentMemory memory = mapping.alloc(4096);
        MemorySegment page = MemorySegment.ofArray(new byte[4096]);
        List<Long> handles = new ArrayList<>();
        long handle;
        while (handles.size() < MILLION
                && !mapping.error(handle = mapping.map(page, 0, 4096, Direction.TO_DEVICE))) {
            handles.add(handle);
        }
        assertEquals(
                memory.mapHandle(), mapping.map(memory.segment(), 0, 4096, Direction.TO_DEVICE));
        mapping.unmap(memory.mapHandle(), 4096, Direction.TO_DEVICE);
        handles.forEach(taken -> mapping.unmap(taken, 4096, Direction.TO_DEVICE));
        mapping.free(memory);
    }

    /** Segment: null where its contents are shared with others and not checked. */
    private record Live(
            long handle, int size, MemorySegment segment, Direction direction, long mark) {}

    @Test
    void aMillionRandomMappingsNeitherLeakNorFragment() {
        MemorySegment largest = largest();
        int before = capacity(largest);
        long limit = Math.min(mapping.maxMappingSize(), 16384);
        SplittableRandom random = new SplittableRandom(4711);
        Direction[] directions = Direction.values();
        Deque<Live> live = new ArrayDeque<>();
        byte[] buffer = new byte[(int) limit];
        long longest = 0;
        for (int i = 0; i < MILLION; i++) {
            if (live.size() < 200 && random.nextInt(5) < 3) {
                int size = 8 + random.nextInt((int) (random.nextInt(16) == 0 ? limit - 8 : 500));
                byte[] own = live.size() < 20 ? new byte[size] : buffer;
                MemorySegment segment = MemorySegment.ofArray(own).asSlice(0, size);
                Direction direction = directions[random.nextInt(3)];
                segment.set(LONG, 0, i);
                long handle = mapping.map(segment, 0, size, direction);
                if (!mapping.error(handle)) {
                    assertTrue(handle != 0);
                    MemorySegment checked = own == buffer ? null : segment;
                    live.add(new Live(handle, size, checked, direction, i));
                    longest = Math.max(longest, size);
                }
            } else if (!live.isEmpty()) {
                release(random.nextBoolean() ? live.pollFirst() : live.pollLast());
            }
        }
        live.forEach(this::release);
        assertTrue(longest > 500, "no large mapping among them");
        assertEquals(before, capacity(largest), "room for mappings, before and after");
    }

    private void release(Live mapped) {
        int size = mapped.size();
        if (mapped.segment() != null && mapped.direction().toDevice()) {
            assertEquals(
                    mapped.mark(),
                    driven.seen(mapped.handle(), size).get(LONG, 0),
                    "contents at the device");
        }
        if (mapped.segment() != null && mapped.direction().fromDevice()) {
            driven.seen(mapped.handle(), size).set(LONG, size - 8, ~mapped.mark());
        }
        mapping.unmap(mapped.handle(), size, mapped.direction());
        if (mapped.segment() != null && mapped.direction().fromDevice()) {
            assertEquals(~mapped.mark(), mapped.segment().get(LONG, size - 8));
        }
    }

    @Test
    void threadsDoNotDisturbEachOther() throws Exception {
        MemorySegment largest = largest();
        int before = capacity(largest);
        ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < 4; t++) {
            int id = t;
            threads.add(Thread.ofPlatform().start(() -> mapAndCheck(id, failures)));
        }
        for (Thread thread : threads) {
            thread.join();
        }
        assertTrue(failures.isEmpty(), () -> "of " + failures.size() + ": " + failures.peek());
        assertEquals(before, capacity(largest), "room for mappings, before and after");
    }

    private void mapAndCheck(int id, ConcurrentLinkedQueue<Throwable> failures) {
        try {
            SplittableRandom random = new SplittableRandom(id);
            for (int i = 0; i < 20_000; i++) {
                int size = 16 + random.nextInt(8000);
                MemorySegment segment = MemorySegment.ofArray(new byte[size]);
                long mark = (long) id << 32 | i;
                segment.set(LONG, 0, mark);
                long handle = mapping.map(segment, 0, size, Direction.BIDIRECTIONAL);
                assertFalse(mapping.error(handle), "four mappings at once do not exhaust it");
                MemorySegment device = driven.seen(handle, size);
                assertEquals(mark, device.get(LONG, 0));
                device.set(LONG, size - 8, mark);
                if (i % 16 == 0) {
                    CoherentMemory memory = mapping.alloc(size);
                    memory.segment().set(LONG, 0, mark);
                    assertEquals(mark, driven.seen(memory.mapHandle(), 8).get(LONG, 0));
                    mapping.free(memory);
                }
                mapping.unmap(handle, size, Direction.BIDIRECTIONAL);
                assertEquals(mark, segment.get(LONG, size - 8));
            }
        } catch (RuntimeException | Error e) {
            failures.add(e);
        }
    }

    @Test
    void mappingAllocatesNothing() {
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        // Not a whole number of pages either.
        int most = (int) Math.min(mapping.maxMappingSize(), 70_000);
        MemorySegment heap = MemorySegment.ofArray(new byte[most]);
        CoherentMemory coherent = mapping.alloc(4096);
        long least = Long.MAX_VALUE;
        // Until it is compiled, however long a busy machine takes for that.
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (least >= 10_000 && System.nanoTime() - end < 0) {
            long before = threads.getCurrentThreadAllocatedBytes();
            for (int i = 0; i < 10_000; i++) {
                mapTwice(heap, i % 2 == 0 ? 4096 : most, coherent.segment());
            }
            least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        }
        mapping.free(coherent);
        assertTrue(least < 10_000, least + " bytes allocated by 20000 mappings");
    }

    private void mapTwice(MemorySegment heap, long bytes, MemorySegment coherent) {
        long bounced = mapping.map(heap, 0, bytes, Direction.BIDIRECTIONAL);
        long direct = mapping.map(coherent, 0, 4096, Direction.BIDIRECTIONAL);
        mapping.unmap(bounced, bytes, Direction.BIDIRECTIONAL);
        mapping.unmap(direct, 4096, Direction.BIDIRECTIONAL);
    }
}
