package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.linux.Epoll;
import virtio.linux.EventFd;
import virtio.linux.EventLoop;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.net.SocketTimeoutException;
import java.util.List;

/**
 * The thread of one device, on which everything arrives that the back-end says by itself: used
 * buffers, errors of a ring, messages of its own, and its end.
 *
 * <p>Controlled by one thread at a time.
 */
final class Poller implements AutoCloseable {
    /** A message of the back-end's own comes whole, or the thread waits this long for its rest. */
    private static final int REST_MILLIS = 1000;

    private final VhostUserTransport transport;
    private EventLoop loop;
    private EventLoop.Watch socketWatch;
    private BackChannel backChannel;

    Poller(VhostUserTransport transport) {
        this.transport = transport;
    }

    /** Gives the back-end a socket for messages of its own, where it wants one. */
    void openBackChannel(FrontEnd peer) throws IOException {
        if (!peer.has(VhostUser.PROTOCOL_F_BACKEND_REQ)) {
            return;
        }
        List<UnixSocket> pair = UnixSocket.pair();
        backChannel = new BackChannel(peer, new Connection(pair.get(0)));
        // Only the descriptor is closed here: closing the socket would shut it down for the peer.
        try (FileDescriptor theirs = pair.get(1).file()) {
            peer.set(VhostUser.SET_BACKEND_REQ_FD, null, theirs);
        }
    }

    /** Starts the thread, unless it runs. */
    void start(FrontEnd peer) throws LinuxException {
        if (loop != null) {
            return;
        }
        loop = EventLoop.start("virtio-" + peer.address());
        watch(peer);
    }

    /** Watches for the end of the conversation, and for messages. */
    void watch(FrontEnd peer) throws LinuxException {
        // Edge: a hang-up lasts, and is to be reported once.
        socketWatch = loop.watch(peer.file(), Epoll.EDGE, events -> ended(peer));
        if (backChannel != null) {
            backChannel.watch(loop);
        }
    }

    private void ended(FrontEnd peer) {
        VirtioException why = peer.failure();
        transport.gone(why != null ? why : peer.fail("peer closed " + peer.address()));
    }

    /** Forgets the conversation; when it returns, its end is not reported any more. */
    void unwatch() {
        if (socketWatch != null) {
            socketWatch.close();
            socketWatch = null;
        }
        closeBackChannel();
    }

    private void closeBackChannel() {
        if (backChannel != null) {
            backChannel.close();
            backChannel = null;
        }
    }

    /** Reports what the back-end says about a ring, until that is closed. */
    void watch(int queue, Vring vring) throws VirtioException {
        if (loop == null) {
            return;
        }
        try {
            vring.watched(
                    loop.watch(
                            vring.call.file(),
                            FileDescriptor.IN,
                            events -> used(queue, vring.call)));
            vring.watched(
                    loop.watch(vring.err.file(), FileDescriptor.IN, events -> failed(vring.err)));
        } catch (LinuxException e) {
            throw new VirtioException("queue " + queue + ": " + e.getMessage(), e);
        }
    }

    private void used(int queue, EventFd call) {
        if (drain(call)) {
            transport.queueUsed(queue);
        }
    }

    private void failed(EventFd err) {
        if (drain(err)) {
            transport.queueFailed();
        }
    }

    private static boolean drain(EventFd counter) {
        try {
            return counter.drain() != 0;
        } catch (LinuxException e) {
            return false;
        }
    }

    @Override
    public void close() {
        if (loop != null) {
            loop.close();
        }
        closeBackChannel();
    }

    /** The socket for messages of the back-end's own. */
    private final class BackChannel implements AutoCloseable {
        private final FrontEnd peer;
        private final Connection connection;
        private EventLoop.Watch watch;

        private BackChannel(FrontEnd peer, Connection connection) {
            this.peer = peer;
            this.connection = connection;
        }

        synchronized void watch(EventLoop loop) throws LinuxException {
            watch = loop.watch(connection.file(), FileDescriptor.IN, events -> in());
        }

        private void in() {
            try (Message message = connection.receive(0, REST_MILLIS)) {
                if (message == null) {
                    close();
                    return;
                }
                boolean known = message.request() == VhostUser.BACKEND_CONFIG_CHANGE_MSG;
                if (known) {
                    transport.configChanged();
                }
                if (message.needsReply()) {
                    connection.send(
                            message.request(),
                            VhostUser.REPLY,
                            Message.u64(known ? 0 : 1),
                            REST_MILLIS);
                }
            } catch (SocketTimeoutException e) {
                // Nothing there after all, or nobody reads the answer.
            } catch (IOException e) {
                close();
                peer.fail("%s: its own messages: %s".formatted(peer.address(), e.getMessage()));
            }
        }

        @Override
        public void close() {
            EventLoop.Watch watching;
            synchronized (this) {
                watching = watch;
            }
            if (watching != null) {
                watching.close();
            }
            connection.close();
        }
    }
}
