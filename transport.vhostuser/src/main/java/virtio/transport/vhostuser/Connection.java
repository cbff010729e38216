package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.linux.FileDescriptor;
import virtio.linux.UnixSocket;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * Messages over a socket, either end.
 *
 * <p>One thread sends at a time, one receives at a time. After an exception other than {@link
 * SocketTimeoutException} the stream is of no use any more.
 */
final class Connection implements AutoCloseable {
    private static final int MAX_BYTES = VhostUser.HEADER_BYTES + VhostUser.MAX_PAYLOAD_BYTES;
    private static final ByteBuffer NOTHING = Message.payload(0);

    private final UnixSocket socket;
    private final MemorySegment outgoing = Arena.ofAuto().allocate(MAX_BYTES, 8);
    private final MemorySegment incoming = Arena.ofAuto().allocate(MAX_BYTES, 8);

    Connection(UnixSocket socket) {
        this.socket = socket;
    }

    /** The socket's descriptor, to wait on. */
    FileDescriptor file() {
        return socket.file();
    }

    /** Sends one message; the payload may be null, the descriptors stay the caller's. */
    void send(int request, int flags, ByteBuffer payload, int timeoutMillis, FileDescriptor... fds)
            throws IOException {
        ByteBuffer body = payload == null ? NOTHING : payload;
        ByteBuffer whole =
                outgoing.asSlice(0, VhostUser.HEADER_BYTES + body.limit())
                        .asByteBuffer()
                        .order(ByteOrder.LITTLE_ENDIAN);
        whole.putInt(request).putInt(VhostUser.VERSION | flags).putInt(body.limit());
        whole.put(body.duplicate().position(0));
        socket.send(outgoing.asSlice(0, whole.capacity()), timeoutMillis, fds);
    }

    /**
     * Receives one message.
     *
     * @param idleMillis how long to wait for its first byte; negative for ever
     * @param timeoutMillis how long its rest may take
     * @return null when the peer has closed between two messages
     * @throws SocketTimeoutException when no byte came in {@code idleMillis}: nothing is lost
     * @throws VirtioException when it is no message of this protocol, naming value and limit
     * @throws IOException when it is cut off or the socket fails
     */
    Message receive(int idleMillis, int timeoutMillis) throws IOException {
        if (socket.file().poll(FileDescriptor.IN, idleMillis) == 0) {
            throw new SocketTimeoutException("nothing in " + idleMillis + " ms");
        }
        List<FileDescriptor> fds = new ArrayList<>();
        boolean whole = false;
        try {
            MemorySegment header = incoming.asSlice(0, VhostUser.HEADER_BYTES);
            if (!receive(header, fds, timeoutMillis)) {
                return null;
            }
            ByteBuffer fields = header.asByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
            int request = fields.getInt();
            int flags = fields.getInt();
            int size = fields.getInt();
            if ((flags & VhostUser.VERSION_MASK) != VhostUser.VERSION) {
                throw new VirtioException(
                        "%s with flags %#x: protocol version %d, only %d is known"
                                .formatted(
                                        VhostUser.name(request),
                                        flags,
                                        flags & VhostUser.VERSION_MASK,
                                        VhostUser.VERSION));
            }
            if (size < 0 || size > VhostUser.MAX_PAYLOAD_BYTES) {
                throw new VirtioException(
                        "%s with a payload of %s bytes, limit is %d"
                                .formatted(
                                        VhostUser.name(request),
                                        Integer.toUnsignedString(size),
                                        VhostUser.MAX_PAYLOAD_BYTES));
            }
            ByteBuffer payload = Message.payload(size);
            if (size > 0) {
                MemorySegment body = incoming.asSlice(VhostUser.HEADER_BYTES, size);
                if (!receive(body, fds, timeoutMillis)) {
                    throw new EOFException(
                            "%s without its payload of %d bytes"
                                    .formatted(VhostUser.name(request), size));
                }
                payload.put(body.asByteBuffer()).flip();
            }
            whole = true;
            return new Message(request, flags, payload, fds);
        } finally {
            if (!whole) {
                fds.forEach(FileDescriptor::close);
            }
        }
    }

    private boolean receive(MemorySegment into, List<FileDescriptor> fds, int timeoutMillis)
            throws IOException {
        try {
            return socket.receive(into, fds, timeoutMillis);
        } catch (SocketTimeoutException e) {
            // Unlike silence between messages, this leaves the stream somewhere inside one.
            throw new EOFException("a message cut off: " + e.getMessage());
        }
    }

    @Override
    public void close() {
        socket.close();
    }
}
