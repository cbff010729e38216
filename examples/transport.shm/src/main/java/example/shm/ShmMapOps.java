package example.shm;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;

import java.lang.foreign.MemorySegment;

/**
 * The map operations: coherent memory and bounce slots in the region of the file that the device
 * was opened with. All state is the token's.
 */
@Component
public final class ShmMapOps implements MapOps {
    @Override
    public long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        return pool(token).map(page, offset, size, direction, attrs);
    }

    @Override
    public void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        ShmMemory memory = (ShmMemory) token;
        memory.pool().unmap(mapHandle, size, direction, attrs);
        memory.givenBack();
    }

    @Override
    public void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction) {
        pool(token).syncForCpu(mapHandle, size, direction);
    }

    @Override
    public void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        pool(token).syncForDevice(mapHandle, size, direction);
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        return pool(token).alloc(size);
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        ShmMemory region = (ShmMemory) token;
        region.pool().free(memory);
        region.givenBack();
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return pool(token).needSync(mapHandle);
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
        return ((ShmMemory) token).pool();
    }
}
