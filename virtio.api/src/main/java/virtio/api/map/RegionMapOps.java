package virtio.api.map;

import org.osgi.annotation.versioning.ConsumerType;

import java.lang.foreign.MemorySegment;

/**
 * The map operations of a transport whose tokens are {@link RegionMemory}, which has all the state.
 *
 * <p>A transport extends it with an empty class of its own, because the core takes the service of
 * the transport's bundle and no other:
 *
 * <pre>{@code
 * @Component(service = MapOps.class) // what a superclass implements is not registered by itself
 * public final class MyMapOps extends RegionMapOps {}
 * }</pre>
 *
 * <p>Threading and errors: as {@link MapOps}. Tokens of another class are refused with a {@link
 * ClassCastException}.
 */
@ConsumerType
public abstract class RegionMapOps implements MapOps {
    /** Without any state. */
    protected RegionMapOps() {}

    @Override
    public final long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs) {
        return ((RegionMemory) token).map(page, offset, size, direction, attrs);
    }

    @Override
    public final void unmapPage(
            MapToken token, long mapHandle, long size, Direction direction, long attrs) {
        ((RegionMemory) token).unmap(mapHandle, size, direction, attrs);
    }

    @Override
    public final void syncSingleForCpu(
            MapToken token, long mapHandle, long size, Direction direction) {
        ((RegionMemory) token).pool(mapHandle).syncForCpu(mapHandle, size, direction);
    }

    @Override
    public final void syncSingleForDevice(
            MapToken token, long mapHandle, long size, Direction direction) {
        ((RegionMemory) token).pool(mapHandle).syncForDevice(mapHandle, size, direction);
    }

    @Override
    public final CoherentMemory alloc(MapToken token, long size) {
        return ((RegionMemory) token).alloc(size);
    }

    @Override
    public final void free(MapToken token, CoherentMemory memory) {
        ((RegionMemory) token).free(memory);
    }

    @Override
    public final boolean needSync(MapToken token, long mapHandle) {
        return ((RegionMemory) token).pool(mapHandle).needSync(mapHandle);
    }

    @Override
    public final boolean mappingError(MapToken token, long mapHandle) {
        return mapHandle == MAPPING_ERROR;
    }

    @Override
    public final long maxMappingSize(MapToken token) {
        return ((RegionMemory) token).maxMappingSize();
    }
}
