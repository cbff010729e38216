package virtio.transport.vhostuser;

import virtio.linux.FileDescriptor;
import virtio.linux.UnixListener;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;

/** Stands between the two ends and takes away from what the back-end offers. */
final class MaskingProxy implements AutoCloseable {
    private final UnixListener listener;
    private final Path backEnd;
    private final long features;
    private final long protocol;
    private final Thread thread;

    /** With the bits that are taken away. */
    MaskingProxy(Path path, Path backEnd, long features, long protocol) throws IOException {
        this.backEnd = backEnd;
        this.features = features;
        this.protocol = protocol;
        listener = UnixListener.listen(path);
        thread = Thread.ofPlatform().name("proxy").start(this::run);
    }

    private void run() {
        while (listener.file().isOpen()) {
            try (UnixSocket front = listener.accept(-1);
                    UnixSocket back = UnixSocket.connect(backEnd, 1000)) {
                Connection toFront = new Connection(front);
                Connection toBack = new Connection(back);
                Thread replies =
                        Thread.ofPlatform().name("replies").start(() -> pump(toBack, toFront));
                pump(toFront, toBack);
                Peers.join(replies);
            } catch (IOException e) {
                // Closed by the test.
            }
        }
    }

    private void pump(Connection from, Connection to) {
        try {
            for (Message message = from.receive(-1, 1000);
                    message != null;
                    message = from.receive(-1, 1000)) {
                try (Message _ = message) {
                    ByteBuffer payload = message.payload();
                    if (message.isReply() && message.request() == VhostUser.GET_FEATURES) {
                        payload = Message.u64(message.u64() & ~features);
                    }
                    if (message.isReply() && message.request() == VhostUser.GET_PROTOCOL_FEATURES) {
                        payload = Message.u64(message.u64() & ~protocol);
                    }
                    FileDescriptor[] fds = message.fds().toArray(FileDescriptor[]::new);
                    int flags = message.flags() & ~VhostUser.VERSION_MASK;
                    to.send(message.request(), flags, payload, 1000, fds);
                }
            }
        } catch (IOException e) {
            // The other side has left.
        }
        from.close();
        to.close();
    }

    @Override
    public void close() {
        listener.close();
        Peers.join(thread);
    }
}
