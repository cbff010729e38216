package virtio.ring.queue;

import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.transport.DriverMemory;

import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;

/**
 * What is mapped at the moment, for runs with {@code -Dvirtio.ring.checked=true}: an access of
 * either end beyond one live piece of it, or a write to what the device only reads, is an error.
 */
final class LiveMemory {
    private record Piece(long length, boolean writable, int times) {}

    /** By address and length, so that pieces may overlap. */
    private static final ConcurrentSkipListMap<Long, Map<Long, Piece>> PIECES =
            new ConcurrentSkipListMap<>();

    private static volatile long checks;

    private LiveMemory() {}

    /** The same operations, with what they map noted, in a checked run. */
    static DeviceMapping noted(DeviceMapping mapping, DriverMemory memory) {
        if (!RingMemory.CHECKED) {
            return mapping;
        }
        RingMemory.bounds = LiveMemory::check;
        return new DeviceMapping(new Noting(mapping.ops(), memory), mapping.token());
    }

    /** Memory that no operation has mapped, as an inflight region. */
    static MemorySegment share(MemorySegment memory) {
        add(memory.address(), memory.byteSize(), true);
        return memory;
    }

    /** Accesses that were checked so far. */
    static long checks() {
        return checks;
    }

    private static void check(long address, long length, boolean write) {
        checks++;
        Map<Long, Map<Long, Piece>> before = PIECES.headMap(address, true).descendingMap();
        for (Map.Entry<Long, Map<Long, Piece>> start : before.entrySet()) {
            for (Piece piece : start.getValue().values()) {
                if (address + length <= start.getKey() + piece.length
                        && (piece.writable || !write)) {
                    return;
                }
            }
        }
        throw new AssertionError(
                "%d bytes %s at %#x, where nothing is mapped for that"
                        .formatted(length, write ? "written" : "read", address));
    }

    private static void add(long address, long length, boolean writable) {
        PIECES.computeIfAbsent(address, a -> new ConcurrentSkipListMap<>())
                .merge(
                        writable ? length : -length,
                        new Piece(length, writable, 1),
                        (piece, one) -> new Piece(length, writable, piece.times + 1));
    }

    private static void remove(long address, long length, boolean writable) {
        PIECES.get(address)
                .computeIfPresent(
                        writable ? length : -length,
                        (key, piece) ->
                                piece.times == 1
                                        ? null
                                        : new Piece(length, writable, piece.times - 1));
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
                add(address(handle, size, d), size, d.fromDevice());
            }
            return handle;
        }

        @Override
        public void unmapPage(MapToken token, long handle, long size, Direction d, long attrs) {
            remove(address(handle, size, d), size, d.fromDevice());
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
                add(allocated.segment().address(), size, true);
            }
            return allocated;
        }

        @Override
        public void free(MapToken token, CoherentMemory allocated) {
            remove(allocated.segment().address(), allocated.segment().byteSize(), true);
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
