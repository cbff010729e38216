package virtio.transport.vhostuser;

import virtio.api.Feature;
import virtio.linux.FileDescriptor;
import virtio.linux.UnixListener;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;

/** A back-end that behaves, but for the requests that a test answers itself. */
final class RogueBackEnd implements AutoCloseable {
    /** What a test answers itself. */
    interface Script {
        /** False to have the message answered as it should be. */
        boolean answer(Message message, Connection connection) throws IOException;
    }

    private final UnixListener listener;
    private final Script script;
    private final long protocol;
    private final Thread thread;
    private volatile UnixSocket socket;

    /** The front-end's socket for messages from here. */
    private volatile UnixChannel channel;

    /** The descriptor that SET_BACKEND_REQ_FD brought. */
    record UnixChannel(FileDescriptor file) {}

    RogueBackEnd(Path path, long protocol, Script script) throws IOException {
        this.script = script;
        this.protocol = protocol;
        listener = UnixListener.listen(path);
        thread = Thread.ofPlatform().name("rogue").start(this::run);
    }

    FileDescriptor channel() {
        return channel.file();
    }

    private void run() {
        while (listener.file().isOpen()) {
            try (UnixSocket accepted = listener.accept(-1)) {
                socket = accepted;
                Connection connection = new Connection(accepted);
                for (Message message = connection.receive(-1, 1000);
                        message != null;
                        message = connection.receive(-1, 1000)) {
                    try (Message _ = message) {
                        if (!script.answer(message, connection)) {
                            behave(message, connection);
                        }
                    }
                }
            } catch (IOException e) {
                // The test has ended it, or the front-end.
            }
            if (channel != null) {
                channel.file().close();
            }
        }
    }

    private void behave(Message message, Connection connection) throws IOException {
        ByteBuffer reply =
                switch (message.request()) {
                    case VhostUser.GET_FEATURES ->
                            Message.u64(
                                    1L << Feature.VERSION_1 | 1L << VhostUser.F_PROTOCOL_FEATURES);
                    case VhostUser.GET_PROTOCOL_FEATURES -> Message.u64(protocol);
                    case VhostUser.GET_QUEUE_NUM -> Message.u64(1);
                    case VhostUser.GET_MAX_MEM_SLOTS -> Message.u64(8);
                    case VhostUser.GET_CONFIG -> message.payload();
                    case VhostUser.GET_VRING_BASE -> message.payload();
                    case VhostUser.GET_STATUS -> Message.u64(0);
                    default -> message.needsReply() ? Message.u64(0) : null;
                };
        if (message.request() == VhostUser.SET_BACKEND_REQ_FD) {
            channel = new UnixChannel(message.fds().removeFirst());
        }
        if (reply != null) {
            reply(message, connection, reply);
        }
    }

    static void reply(
            Message message, Connection connection, ByteBuffer payload, FileDescriptor... fds)
            throws IOException {
        connection.send(message.request(), VhostUser.REPLY, payload, 1000, fds);
    }

    @Override
    public void close() {
        listener.close();
        if (socket != null) {
            socket.close();
        }
        Peers.join(thread);
    }
}
