package virtio.backend.net;

/** Where frames go that a port has sent: back, or to others. Thread-safe. */
interface Link {
    /** Delivers the sender's frame. */
    void send(Port from, Sender sender);

    /** The port is gone; idempotent. */
    void leave(Port port);
}
