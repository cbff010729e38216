package virtio.api.map;

import org.osgi.annotation.versioning.ConsumerType;

import java.lang.foreign.MemorySegment;

/**
 * How a transport makes the driver's buffers visible to its device; {@code struct virtio_map_ops}
 * of Linux 6.18, all nine operations required.
 *
 * <p>A service, registered by the bundle that registers the {@link
 * virtio.api.transport.TransportProvider}: the core refuses a transport without it. The pair (ops,
 * token) is bound to a queue when the queue is made and not looked up again, so what was mapped by
 * one service object is unmapped by the same one.
 *
 * <p>Handle 0 is never handed out. Any segment can be mapped, heap arrays included: the operations
 * pin it, find it in a shared region or bounce it. Bounce memory is cleared before a device may see
 * it, and copies follow the {@link Direction}.
 *
 * <p>Threading: every operation may be called from any thread at any time between the opening of
 * the transport that made the token and the {@link #free} or {@link #unmapPage} of the last thing
 * mapped, even after {@link virtio.api.transport.Transport#close()}. Nothing allocates Java objects
 * but {@link #alloc}.
 */
@ConsumerType
public interface MapOps {
    /** The one handle that means failure: {@code DMA_MAPPING_ERROR} of Linux. */
    long MAPPING_ERROR = -1L;

    /**
     * Attribute: do not copy now, the caller synchronises itself; {@code DMA_ATTR_SKIP_CPU_SYNC}.
     */
    long SKIP_CPU_SYNC = 1L << 5;

    /**
     * Makes {@code size} bytes of {@code page} from {@code offset} visible to the device.
     *
     * @param size 1 to {@link #maxMappingSize} bytes
     * @param attrs 0 or {@link #SKIP_CPU_SYNC}
     * @return the handle the device is told, or a value for which {@link #mappingError} holds when
     *     there is no room now; never an exception for lack of room
     */
    long mapPage(
            MapToken token,
            MemorySegment page,
            long offset,
            long size,
            Direction direction,
            long attrs);

    /**
     * Takes a mapping back; a bounced buffer the device wrote is copied to where it was mapped
     * from. What cannot be copied, because the segment was closed meanwhile or is another thread's
     * alone, is lost without an exception: who takes back what many have mapped fails for none.
     *
     * @param size what was given to {@link #mapPage}, as is {@code direction}
     */
    void unmapPage(MapToken token, long mapHandle, long size, Direction direction, long attrs);

    /**
     * Lets the driver see what the device wrote so far, the mapping stays.
     *
     * @param mapHandle a handle within a mapping, not necessarily its first
     */
    void syncSingleForCpu(MapToken token, long mapHandle, long size, Direction direction);

    /**
     * Lets the device see what the driver wrote since, the mapping stays.
     *
     * @param mapHandle a handle within a mapping, not necessarily its first
     */
    void syncSingleForDevice(MapToken token, long mapHandle, long size, Direction direction);

    /** Zeroed memory that both see at once, aligned to 4096 bytes; null when there is none. */
    CoherentMemory alloc(MapToken token, long size);

    /** Gives back what {@link #alloc} gave; the device must not be using it. */
    void free(MapToken token, CoherentMemory memory);

    /** Whether the mapping needs the sync operations at all (it is bounced or not coherent). */
    boolean needSync(MapToken token, long mapHandle);

    /** Whether {@link #mapPage} failed. */
    boolean mappingError(MapToken token, long mapHandle);

    /** The most bytes one {@link #mapPage} takes; {@code virtio_max_dma_size}. */
    long maxMappingSize(MapToken token);
}
