package virtio.api.net;

/** Why frames were dropped by the driver. */
public enum DropReason {
    /** The device used a buffer for less than a header and an Ethernet header. */
    SHORT,
    /** {@code num_buffers} is not the number of buffers that the device used. */
    NUM_BUFFERS,
    /** More bytes than any frame can have. */
    LONG,
    /** A checksum to fill in lies beyond the frame. */
    CHECKSUM_RANGE,
    /** An offload that was not negotiated, or that contradicts itself. */
    OFFLOAD,
    /** Received before anybody had opened the queue. */
    UNCLAIMED,
    /** Given to a device that was gone before it said that it had sent them. */
    IN_FLIGHT
}
