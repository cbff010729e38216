package virtio.ring.queue;

import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.map.Direction;
import virtio.api.map.IdentityMapOps;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;
import virtio.api.transport.DriverMemory;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.function.IntSupplier;

/** A mapping under test, with the device's view of it. */
record Mapped(DeviceMapping mapping, DriverMemory memory, IntSupplier live, AutoCloseable resource)
        implements AutoCloseable {

    /** Every buffer is where it is, and the device sees all memory. */
    static Mapped identity() {
        IdentityMapOps.Token token = IdentityMapOps.token(16 << 20, 1 << 20);
        DriverMemory all =
                new DriverMemory() {
                    @Override
                    public long translate(long mapHandle, long length, boolean write) {
                        return mapHandle;
                    }

                    @Override
                    public long reach(long mapHandle, boolean write) {
                        return mapHandle == 0 ? 0 : Long.MAX_VALUE;
                    }
                };
        return new Mapped(new DeviceMapping(new IdentityMapOps(), token), all, token::live, token);
    }

    /** Every buffer is copied to somewhere else, at handles that are no addresses. */
    static Mapped copying() {
        Arena arena = Arena.ofShared();
        MemorySegment region = arena.allocate(32 << 20, 4096);
        Copying ops = new Copying(new RegionPool(region, 0x7_0000_0000L, 16 << 20));
        Regions memory = new Regions().share(0x7_0000_0000L, region);
        return new Mapped(
                new DeviceMapping(ops, new MapToken() {}), memory, ops.pool::live, arena::close);
    }

    @Override
    public void close() {
        try {
            resource.close();
        } catch (Exception e) {
            throw new AssertionError(e);
        }
    }

    /** Always bounces: a buffer is visible to the other end by map, sync and unmap only. */
    static final class Copying implements MapOps {
        final RegionPool pool;

        Copying(RegionPool pool) {
            this.pool = pool;
        }

        @Override
        public long mapPage(
                MapToken token, MemorySegment page, long offset, long size, Direction d, long a) {
            return pool.map(page, offset, size, d, a);
        }

        @Override
        public void unmapPage(MapToken token, long handle, long size, Direction d, long attrs) {
            pool.unmap(handle, size, d, attrs);
        }

        @Override
        public void syncSingleForCpu(MapToken token, long handle, long size, Direction d) {
            pool.syncForCpu(handle, size, d);
        }

        @Override
        public void syncSingleForDevice(MapToken token, long handle, long size, Direction d) {
            pool.syncForDevice(handle, size, d);
        }

        @Override
        public CoherentMemory alloc(MapToken token, long size) {
            return pool.alloc(size);
        }

        @Override
        public void free(MapToken token, CoherentMemory memory) {
            pool.free(memory);
        }

        @Override
        public boolean needSync(MapToken token, long mapHandle) {
            return pool.needSync(mapHandle);
        }

        @Override
        public boolean mappingError(MapToken token, long mapHandle) {
            return mapHandle == MAPPING_ERROR;
        }

        @Override
        public long maxMappingSize(MapToken token) {
            return pool.maxMappingSize();
        }
    }
}
