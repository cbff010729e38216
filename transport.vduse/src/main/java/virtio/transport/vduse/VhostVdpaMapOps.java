package virtio.transport.vduse;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;

import java.lang.foreign.MemorySegment;

/** Map operations of all vhost-vdpa devices; the token is the device's {@link IovaDomain}. */
@Component
public final class VhostVdpaMapOps implements MapOps {
    @Override
    public long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        return ((IovaDomain) token).map(page, offset, size, direction, attrs);
    }

    @Override
    public void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        ((IovaDomain) token).unmap(mapHandle, size, direction, attrs);
    }

    @Override
    public void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction) {
        ((IovaDomain) token).syncForCpu(mapHandle, size, direction);
    }

    @Override
    public void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        ((IovaDomain) token).syncForDevice(mapHandle, size, direction);
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        return ((IovaDomain) token).alloc(size);
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        ((IovaDomain) token).free(memory);
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return ((IovaDomain) token).needSync(mapHandle);
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return ((IovaDomain) token).maxMappingSize();
    }
}
