package virtio.transport.pci;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.map.MapToken;

import java.lang.foreign.MemorySegment;

/**
 * The map operations of PCI functions: coherent memory and bounce slots in what the device was
 * opened with. All state is the token's.
 */
@Component
public final class PciMapOps implements MapOps {
    @Override
    public long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        return ((PciMemory) token).map(page, offset, size, direction, attrs);
    }

    @Override
    public void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        ((PciMemory) token).unmap(mapHandle, size, direction, attrs);
    }

    @Override
    public void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction) {
        ((PciMemory) token).syncForCpu(mapHandle, size, direction);
    }

    @Override
    public void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        ((PciMemory) token).syncForDevice(mapHandle, size, direction);
    }

    @Override
    public CoherentMemory alloc(MapToken token, long size) {
        return ((PciMemory) token).alloc(size);
    }

    @Override
    public void free(MapToken token, CoherentMemory memory) {
        ((PciMemory) token).free(memory);
    }

    @Override
    public boolean needSync(MapToken token, long mapHandle) {
        return ((PciMemory) token).needSync(mapHandle);
    }

    @Override
    public boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public long maxMappingSize(MapToken token) {
        return ((PciMemory) token).maxMappingBytes();
    }
}
