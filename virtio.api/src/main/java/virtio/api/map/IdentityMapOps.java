package virtio.api.map;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Map operations for devices in the same process: the handle of native memory is its address.
 *
 * <p>Never chosen by itself, since it would hand virtual addresses to a device elsewhere as if they
 * were its own: a transport whose device shares the address space registers it explicitly. Heap
 * arrays are bounced.
 */
public final class IdentityMapOps implements MapOps {
    /** With no state but that of the tokens. */
    public IdentityMapOps() {}

    /** A token with coherent memory and bounce slots of its own, until it is closed. */
    public static Token token(long coherentBytes, long bounceBytes) {
        return new Token(coherentBytes, bounceBytes);
    }

    /** Memory of one device; closing it frees the memory, after which access throws. */
    public static final class Token implements MapToken, AutoCloseable {
        private final Arena arena = Arena.ofShared();
        private final RegionPool pool;

        private Token(long coherentBytes, long bounceBytes) {
            MemorySegment region = arena.allocate(coherentBytes + bounceBytes, 4096);
            pool = new RegionPool(region, region.address(), bounceBytes);
        }

        /** As {@link RegionPool#live}. */
        public int live() {
            return pool.live();
        }

        @Override
        public void close() {
            arena.close();
        }
    }

    @Override
    public long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        if (page.isNative() && size > 0 && offset >= 0 && size <= page.byteSize() - offset) {
            return page.address() + offset;
        }
        return pool(token).map(page, offset, size, direction, attrs);
    }

    @Override
    public void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        RegionPool pool = pool(token);
        if (pool.contains(mapHandle)) {
            pool.unmap(mapHandle, size, direction, attrs);
        }
    }

    @Override
    public void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction) {
        RegionPool pool = pool(token);
        if (pool.contains(mapHandle)) {
            pool.syncForCpu(mapHandle, size, direction);
        }
    }

    @Override
    public void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        RegionPool pool = pool(token);
        if (pool.contains(mapHandle)) {
            pool.syncForDevice(mapHandle, size, direction);
        }
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        return pool(token).alloc(size);
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        pool(token).free(memory);
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        RegionPool pool = pool(token);
        return pool.contains(mapHandle) && pool.needSync(mapHandle);
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return pool(token).maxMappingSize();
    }

    private static RegionPool pool(MapToken token) {
        return ((Token) token).pool;
    }
}
