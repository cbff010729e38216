package virtio.tck;

/** How a {@link RogueTransport}'s device breaks its promises. */
public enum Misbehaviour {
    /** Not at all. */
    NONE,
    /** The status field reads as 0 whatever is written. */
    STATUS_NEVER_SET,
    /** The status field keeps its bits when the device is reset. */
    RESET_NEVER_DONE,
    /** FEATURES_OK reads as 0. */
    FEATURES_OK_NEVER_SET,
    /** The configuration generation is another one at each read. */
    GENERATION_NEVER_SETTLES,
    /** A used element has an id of a descriptor that the table does not have. */
    USED_ID_OUT_OF_RANGE,
    /** A used element has the id of a descriptor that heads no available buffer. */
    USED_ID_NOT_AVAILABLE,
    /** A used element says that one byte more was written than the buffer has. */
    LENGTH_TOO_LONG,
    /** The used index is ahead of all that was made available. */
    INDEX_JUMPS
}
