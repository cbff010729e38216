package virtio.transport.mmio;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;
import virtio.api.map.RegionPool;

import java.lang.foreign.MemorySegment;

/**
 * The map operations of all windows: coherent memory and bounce slots in the memory that the device
 * was opened with, to which an emulated window knows bus addresses and a real one physical ones.
 * All state is the token's.
 */
@Component
public final class MmioMapOps implements MapOps {
    @Override
    public long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        return ((MmioMemory) token).map(page, offset, size, direction, attrs);
    }

    @Override
    public void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        ((MmioMemory) token).unmap(mapHandle, size, direction, attrs);
    }

    @Override
    public void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction) {
        pool(token, mapHandle).syncForCpu(mapHandle, size, direction);
    }

    @Override
    public void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        pool(token, mapHandle).syncForDevice(mapHandle, size, direction);
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        return ((MmioMemory) token).alloc(size);
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        ((MmioMemory) token).free(memory);
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return pool(token, mapHandle).needSync(mapHandle);
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return ((MmioMemory) token).maxMappingSize();
    }

    private static RegionPool pool(MapToken token, long mapHandle) {
        return ((MmioMemory) token).pool(mapHandle);
    }
}
