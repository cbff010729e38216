package virtio.api.net;

/** Whether a card sends and receives at once; the ordinal is the number in its configuration. */
public enum Duplex {
    /** One at a time. */
    HALF,
    /** Both at once. */
    FULL,
    /** The device does not say. */
    UNKNOWN
}
