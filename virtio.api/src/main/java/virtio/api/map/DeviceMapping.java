package virtio.api.map;

import java.lang.foreign.MemorySegment;
import java.util.Objects;

/**
 * The pair (ops, token) that a device or a queue is bound to for its lifetime; the {@code
 * virtqueue_map_*} functions of Linux, for drivers that map by themselves.
 *
 * <p>Thread-safe as its {@link MapOps} are.
 */
public final class DeviceMapping {
    private final MapOps ops;
    private final MapToken token;
    private final boolean identity;

    /** Binds the operations to the token they are to be called with. */
    public DeviceMapping(MapOps ops, MapToken token) {
        this.ops = Objects.requireNonNull(ops, "ops");
        this.token = Objects.requireNonNull(token, "token");
        identity = ops instanceof IdentityMapOps;
    }

    /**
     * Whether native memory is mapped where it is: its address is the handle, and there is nothing
     * to unmap, so that a queue may skip both calls; {@code dma_need_unmap} of Linux.
     */
    public boolean identity() {
        return identity;
    }

    /** The operations, for callers that hoist them out of a loop. */
    public MapOps ops() {
        return ops;
    }

    /** The token that goes with {@link #ops}. */
    public MapToken token() {
        return token;
    }

    /** {@link MapOps#mapPage} without attributes. */
    public long map(MemorySegment segment, long offset, long size, Direction direction) {
        return ops.mapPage(token, segment, offset, size, direction, 0);
    }

    /** {@link MapOps#unmapPage} without attributes. */
    public void unmap(long mapHandle, long size, Direction direction) {
        ops.unmapPage(token, mapHandle, size, direction, 0);
    }

    /** {@link MapOps#syncSingleForCpu}. */
    public void syncForCpu(long mapHandle, long size, Direction direction) {
        ops.syncSingleForCpu(token, mapHandle, size, direction);
    }

    /** {@link MapOps#syncSingleForDevice}. */
    public void syncForDevice(long mapHandle, long size, Direction direction) {
        ops.syncSingleForDevice(token, mapHandle, size, direction);
    }

    /** {@link MapOps#alloc}: null when there is no room. */
    public CoherentMemory alloc(long size) {
        return ops.alloc(token, size);
    }

    /** {@link MapOps#free}. */
    public void free(CoherentMemory memory) {
        ops.free(token, memory);
    }

    /** {@link MapOps#needSync}. */
    public boolean needSync(long mapHandle) {
        return ops.needSync(token, mapHandle);
    }

    /** {@link MapOps#mappingError}. */
    public boolean error(long mapHandle) {
        return ops.mappingError(token, mapHandle);
    }

    /** {@link MapOps#maxMappingSize}. */
    public long maxMappingSize() {
        return ops.maxMappingSize(token);
    }
}
