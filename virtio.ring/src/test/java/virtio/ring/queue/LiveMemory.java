package virtio.ring.queue;

import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.transport.DriverMemory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;

/**
 * What is mapped at the moment, for the run with {@code -Dvirtio.ring.checked=true}: an access of
 * either end to a byte that is not, or a write to one that the device only reads, is an error.
 *
 * <p>A byte may be mapped more than once, so there is a count for each, by pages that are made when
 * something in them is mapped for the first time.
 */
final class LiveMemory {
    private static final int PAGE_BYTES = 4096;

    /** How often each byte is mapped. */
    private static final class Page {
        final int[] readable = new int[PAGE_BYTES];
        final int[] writable = new int[PAGE_BYTES];

        synchronized void count(int from, int to, boolean write, int by) {
            for (int i = from; i < to; i++) {
                readable[i] += by;
                writable[i] += write ? by : 0;
                if (readable[i] < 0 || writable[i] < 0) {
                    throw new AssertionError("unmapped more often than mapped");
                }
            }
        }
    }

    /** Bound where a test does what a hostile peer does, which may be anything. */
    static final ScopedValue<Boolean> HOSTILE = ScopedValue.newInstance();

    private static final ConcurrentHashMap<Long, Page> PAGES = new ConcurrentHashMap<>();

    static {
        RingMemory.bounds = LiveMemory::check;
    }

    private LiveMemory() {}

    /** The same operations, with what they map noted, in a checked run. */
    static DeviceMapping noted(DeviceMapping mapping, DriverMemory memory) {
        return RingMemory.CHECKED
                ? new DeviceMapping(new Noting(mapping.ops(), memory), mapping.token())
                : mapping;
    }

    /** Memory that no operation maps, as an inflight region or a ring made by hand. */
    static MemorySegment share(MemorySegment memory) {
        count(memory.address(), memory.byteSize(), true, 1);
        return memory;
    }

    static void unshare(MemorySegment memory) {
        count(memory.address(), memory.byteSize(), true, -1);
    }

    /** What is allocated from it is shared until it is closed. */
    static Arena arena() {
        return new Sharing(Arena.ofShared(), new ArrayList<>());
    }

    private record Sharing(Arena arena, List<MemorySegment> shared) implements Arena {
        @Override
        public MemorySegment allocate(long byteSize, long byteAlignment) {
            MemorySegment memory = share(arena.allocate(byteSize, byteAlignment));
            shared.add(memory);
            return memory;
        }

        @Override
        public MemorySegment.Scope scope() {
            return arena.scope();
        }

        @Override
        public void close() {
            shared.forEach(LiveMemory::unshare);
            arena.close();
        }
    }

    /** What {@link RingMemory} asks before each access of a checked run. */
    static void check(long address, long length, boolean write) {
        if (HOSTILE.isBound()) {
            return;
        }
        long end = address + length;
        for (long at = address; at < end; ) {
            Page page = PAGES.get(at / PAGE_BYTES);
            long stop = Math.min(end, (at / PAGE_BYTES + 1) * PAGE_BYTES);
            for (; at < stop; at++) {
                int i = (int) (at % PAGE_BYTES);
                if (page == null || (write ? page.writable[i] : page.readable[i]) == 0) {
                    throw new AssertionError(
                            "%d bytes %s at %#x, of which %#x is not mapped for that"
                                    .formatted(length, write ? "written" : "read", address, at));
                }
            }
        }
    }

    private static void count(long address, long length, boolean write, int by) {
        if (!RingMemory.CHECKED) {
            return;
        }
        long end = address + length;
        for (long at = address; at < end; ) {
            long stop = Math.min(end, (at / PAGE_BYTES + 1) * PAGE_BYTES);
            int from = (int) (at % PAGE_BYTES);
            PAGES.computeIfAbsent(at / PAGE_BYTES, number -> new Page())
                    .count(from, from + (int) (stop - at), write, by);
            at = stop;
        }
    }

    private record Noting(MapOps ops, DriverMemory memory) implements MapOps {
        private long address(long handle, long size, Direction direction) {
            long address = memory.translate(handle, size, direction.fromDevice());
            if (address == DriverMemory.FAULT) {
                throw new AssertionError("mapped, and not seen by the device: " + handle);
            }
            return address;
        }

        @Override
        public long mapPage(
                MapToken token, MemorySegment page, long offset, long size, Direction d, long a) {
            long handle = ops.mapPage(token, page, offset, size, d, a);
            if (!ops.mappingError(token, handle)) {
                count(address(handle, size, d), size, d.fromDevice(), 1);
            }
            return handle;
        }

        @Override
        public void unmapPage(MapToken token, long handle, long size, Direction d, long attrs) {
            count(address(handle, size, d), size, d.fromDevice(), -1);
            ops.unmapPage(token, handle, size, d, attrs);
        }

        @Override
        public void syncSingleForCpu(MapToken token, long handle, long size, Direction d) {
            ops.syncSingleForCpu(token, handle, size, d);
        }

        @Override
        public void syncSingleForDevice(MapToken token, long handle, long size, Direction d) {
            ops.syncSingleForDevice(token, handle, size, d);
        }

        @Override
        public CoherentMemory alloc(MapToken token, long size) {
            CoherentMemory allocated = ops.alloc(token, size);
            if (allocated != null) {
                count(allocated.segment().address(), allocated.segment().byteSize(), true, 1);
            }
            return allocated;
        }

        @Override
        public void free(MapToken token, CoherentMemory allocated) {
            count(allocated.segment().address(), allocated.segment().byteSize(), true, -1);
            ops.free(token, allocated);
        }

        @Override
        public boolean needSync(MapToken token, long mapHandle) {
            return ops.needSync(token, mapHandle);
        }

        @Override
        public boolean mappingError(MapToken token, long mapHandle) {
            return ops.mappingError(token, mapHandle);
        }

        @Override
        public long maxMappingSize(MapToken token) {
            return ops.maxMappingSize(token);
        }
    }
}
