package virtio.api.transport;

import org.osgi.annotation.versioning.ConsumerType;

/**
 * The driver's memory as the device end may access it.
 *
 * <p>Called for every element of every buffer: allocates and locks nothing. An address stays valid
 * until the queue is stopped.
 */
@ConsumerType
public interface DriverMemory {
    /** What {@link #translate} returns for memory that the driver has not shared. */
    long FAULT = 0L;

    /**
     * Where {@code length} bytes from {@code mapHandle} lie in this process.
     *
     * @param write whether the device is going to write there
     * @return the native address, or {@link #FAULT} unless all of it is mapped in one piece with
     *     that right
     */
    long translate(long mapHandle, long length, boolean write);

    /**
     * Bytes from {@code mapHandle} that {@link #translate} gives in one piece, 0 when it is not
     * mapped; for elements that span pieces.
     */
    long reach(long mapHandle, boolean write);
}
