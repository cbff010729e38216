package virtio.transport.vhostuser;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;

import java.lang.foreign.MemorySegment;

/** Map operations of all vhost-user devices; the token is the device's {@link SharedRegions}. */
@Component
public final class VhostUserMapOps implements MapOps {
    @Override
    public long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        return ((SharedRegions) token).map(page, offset, size, direction, attrs);
    }

    @Override
    public void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        ((SharedRegions) token).unmap(mapHandle, size, direction, attrs);
    }

    @Override
    public void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction) {
        ((SharedRegions) token).syncForCpu(mapHandle, size, direction);
    }

    @Override
    public void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        ((SharedRegions) token).syncForDevice(mapHandle, size, direction);
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        return ((SharedRegions) token).alloc(size);
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        ((SharedRegions) token).free(memory);
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return ((SharedRegions) token).needSync(mapHandle);
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return ((SharedRegions) token).maxMappingSize();
    }
}
