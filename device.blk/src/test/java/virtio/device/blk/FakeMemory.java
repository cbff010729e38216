package virtio.device.blk;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;

/** Coherent memory, counted; buffers are handed to the fake queue as they are, so never mapped. */
final class FakeMemory implements MapOps, MapToken {
    private record Piece(Arena arena, MemorySegment segment) {}

    private final ConcurrentSkipListMap<Long, Piece> pieces = new ConcurrentSkipListMap<>();
    volatile long room = Long.MAX_VALUE;
    long maxMappingSize = Integer.MAX_VALUE;

    int live() {
        return pieces.size();
    }

    MemorySegment at(long handle, long length) {
        Map.Entry<Long, Piece> entry = pieces.floorEntry(handle);
        return entry.getValue().segment.asSlice(handle - entry.getKey(), length);
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        if (size > room) {
            return null;
        }
        Arena arena = Arena.ofShared();
        MemorySegment segment = arena.allocate(size, 4096);
        pieces.put(segment.address(), new Piece(arena, segment));
        return new CoherentMemory(segment, segment.address());
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        pieces.remove(memory.mapHandle()).arena.close();
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return maxMappingSize;
    }

    @Override
    public long mapPage(
            MapToken token, MemorySegment page, long offset, long size, Direction d, long attrs) {
        throw new AssertionError("the queue maps, not the driver");
    }

    @Override
    public void unmapPage(MapToken token, long handle, long size, Direction d, long attrs) {
        throw new AssertionError("the queue unmaps, not the driver");
    }

    @Override
    public void syncSingleForCpu(MapToken token, long handle, long size, Direction d) {}

    @Override
    public void syncSingleForDevice(MapToken token, long handle, long size, Direction d) {}

    @Override
    public boolean needSync(MapToken token, long handle) {
        return false;
    }

    @Override
    public boolean mappingError(MapToken token, long handle) {
        return handle == MAPPING_ERROR;
    }
}
