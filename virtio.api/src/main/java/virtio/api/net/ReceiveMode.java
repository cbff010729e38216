package virtio.api.net;

/** What a card receives (virtio 5.1.6.5.1); the ordinal is the command's number. */
public enum ReceiveMode {
    /** Every frame. */
    PROMISCUOUS,
    /** Every multicast frame. */
    ALL_MULTICAST,
    /** Every unicast frame. */
    ALL_UNICAST,
    /** No multicast frame, broadcasts excepted. */
    NO_MULTICAST,
    /** No unicast frame. */
    NO_UNICAST,
    /** No broadcast. */
    NO_BROADCAST
}
