package virtio.backend.net;

/** Something that takes frames. Thread-safe. */
interface Port {
    /** Takes the sender's frame, or drops it; the frame stays as it is. */
    void deliver(Sender sender);
}
