package virtio.linux;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * A connected UNIX stream socket, over which bytes and descriptors go (unix(7)).
 *
 * <p>One thread may send while another receives; a third may close, which ends what those two wait
 * for. A timeout is in milliseconds and covers the whole call; negative waits for ever. After a
 * timeout or an error in the middle of a message the stream is of no use any more: close it.
 */
public final class UnixSocket implements AutoCloseable {
    /** How many descriptors one call sends or receives at most. */
    public static final int MAX_FDS = SocketMessage.MAX_FDS;

    private static final int SUN_PATH_BYTES = 108;

    private final FileDescriptor file;
    private final SocketMessage outgoing = new SocketMessage();
    private final SocketMessage incoming = new SocketMessage();

    UnixSocket(FileDescriptor file) {
        this.file = file;
    }

    /**
     * Connects to who listens on {@code path}.
     *
     * @param timeoutMillis how long to wait while the listener's queue is full
     * @throws LinuxException ENOENT when there is no such file, ECONNREFUSED when nobody listens
     * @throws SocketTimeoutException when the queue stays full
     */
    public static UnixSocket connect(Path path, int timeoutMillis) throws IOException {
        String name = "unix:" + path;
        int type = LibSocket.SOCK_STREAM | LibSocket.SOCK_CLOEXEC;
        FileDescriptor file = FileDescriptor.own(LibSocket.socket(type), "socket", name);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment address = address(arena, path);
            if (timeoutMillis >= 0) {
                long micros = Math.max(1, timeoutMillis) * 1000L;
                MemorySegment timeval =
                        arena.allocateFrom(JAVA_LONG, micros / 1_000_000, micros % 1_000_000);
                int set = LibSocket.setsockopt(file.fd(), LibSocket.SO_SNDTIMEO, timeval);
                FileDescriptor.check(set, "setsockopt", name);
            }
            int result;
            do {
                result = LibSocket.connect(file.fd(), address);
            } while (result == -Errno.EINTR);
            if (result == -Errno.EAGAIN) {
                throw new SocketTimeoutException(
                        "connect %s: queue full for %d ms".formatted(name, timeoutMillis));
            }
            FileDescriptor.check(result, "connect", name);
            return new UnixSocket(file);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    /** Two sockets, connected to each other (socketpair(2)). */
    public static List<UnixSocket> pair() throws LinuxException {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment two = arena.allocate(JAVA_INT, 2);
            int type = LibSocket.SOCK_STREAM | LibSocket.SOCK_CLOEXEC;
            FileDescriptor.check(LibSocket.socketpair(type, two), "socketpair", "unix");
            return List.of(
                    new UnixSocket(FileDescriptor.of(two.getAtIndex(JAVA_INT, 0), "unix pair")),
                    new UnixSocket(FileDescriptor.of(two.getAtIndex(JAVA_INT, 1), "unix pair")));
        }
    }

    /** struct sockaddr_un: family, path, and a byte of 0. */
    static MemorySegment address(Arena arena, Path path) throws LinuxException {
        byte[] bytes = path.toString().getBytes(StandardCharsets.UTF_8);
        if (bytes.length >= SUN_PATH_BYTES) {
            throw new LinuxException(
                    "socket address",
                    "%s, %d bytes where %d fit".formatted(path, bytes.length, SUN_PATH_BYTES - 1),
                    Errno.ENAMETOOLONG);
        }
        MemorySegment address = arena.allocate(Short.BYTES + bytes.length + 1, 8);
        address.set(JAVA_SHORT, 0, (short) LibSocket.AF_UNIX);
        MemorySegment.copy(MemorySegment.ofArray(bytes), 0, address, Short.BYTES, bytes.length);
        return address;
    }

    /** The descriptor, to wait on; it stays this object's, and is closed by this object. */
    public FileDescriptor file() {
        return file;
    }

    /**
     * Sends all of {@code bytes}, the descriptors along with the first of them.
     *
     * @param bytes native memory, at least 1 byte when there are descriptors
     * @param fds at most {@link #MAX_FDS}; they stay the caller's
     * @throws LinuxException EPIPE when the peer has closed
     * @throws SocketTimeoutException when the peer does not take them in time
     */
    public void send(MemorySegment bytes, int timeoutMillis, FileDescriptor... fds)
            throws IOException {
        if (fds.length > MAX_FDS || fds.length > 0 && bytes.byteSize() == 0) {
            throw new IllegalArgumentException(
                    "%d descriptors with %d bytes: at most %d, with 1 byte or more"
                            .formatted(fds.length, bytes.byteSize(), MAX_FDS));
        }
        long end = System.nanoTime() + timeoutMillis * 1_000_000L;
        int fd = file.acquire("sendmsg");
        int held = 0;
        try {
            synchronized (outgoing) {
                outgoing.clear();
                for (; held < fds.length; held++) {
                    outgoing.addDescriptor(fds[held].acquire("sendmsg"));
                }
                long sent = 0;
                while (sent < bytes.byteSize()) {
                    long n = outgoing.send(fd, bytes, sent);
                    if (n > 0) {
                        sent += n;
                        outgoing.clear();
                    } else {
                        proceed(
                                n,
                                "sendmsg",
                                fd,
                                FileDescriptor.OUT,
                                timeoutMillis,
                                end,
                                sent,
                                bytes.byteSize());
                    }
                }
            }
        } finally {
            while (held > 0) {
                fds[--held].release();
            }
            file.release();
        }
    }

    /**
     * Receives as many bytes as {@code into} has, and no more.
     *
     * @param into native memory
     * @param fds where the descriptors that came with the bytes are added; the caller owns them
     * @return false when the peer has closed before the first byte
     * @throws EOFException when the peer has closed after it
     * @throws SocketTimeoutException when the bytes do not come in time
     * @throws LinuxException ECONNRESET when the peer has closed without reading all that was sent
     *     to it, EMSGSIZE when there are more than {@link #MAX_FDS} descriptors, or more than this
     *     process may open: then, as after every exception, all that came have been closed
     */
    public boolean receive(MemorySegment into, List<FileDescriptor> fds, int timeoutMillis)
            throws IOException {
        long end = System.nanoTime() + timeoutMillis * 1_000_000L;
        List<FileDescriptor> came = new ArrayList<>();
        int fd = file.acquire("recvmsg");
        try {
            synchronized (incoming) {
                long got = 0;
                while (got < into.byteSize()) {
                    long n = incoming.receive(fd, into, got, came, file.name());
                    if (n > 0) {
                        got += n;
                    } else if (n == 0 && file.isOpen()) {
                        if (got == 0) {
                            return false;
                        }
                        throw new EOFException(
                                "recvmsg %s: peer has closed after %d of %d bytes"
                                        .formatted(file.name(), got, into.byteSize()));
                    } else {
                        proceed(
                                n,
                                "recvmsg",
                                fd,
                                FileDescriptor.IN,
                                timeoutMillis,
                                end,
                                got,
                                into.byteSize());
                    }
                }
            }
            fds.addAll(came);
            came.clear();
            return true;
        } finally {
            came.forEach(FileDescriptor::close);
            file.release();
        }
    }

    /** After a call that did nothing: waits if that helps, and says why if it does not. */
    private void proceed(
            long result,
            String call,
            int fd,
            int event,
            int timeoutMillis,
            long end,
            long done,
            long all)
            throws IOException {
        if (!file.isOpen()) {
            throw new LinuxException(call, file.name(), Errno.EBADF);
        }
        if (result == -Errno.EINTR) {
            return;
        }
        if (result != -Errno.EAGAIN) {
            throw new LinuxException(call, file.name(), (int) -result);
        }
        int ready = LibC.poll(fd, event, timeoutMillis < 0 ? -1 : FileDescriptor.millisUntil(end));
        if (ready == 0) {
            throw new SocketTimeoutException(
                    "%s %s: %d of %d bytes in %d ms"
                            .formatted(call, file.name(), done, all, timeoutMillis));
        }
        if (ready != -Errno.EINTR) {
            FileDescriptor.check(ready, "poll", file.name());
        }
    }

    /** Closes; who is waiting in another thread fails with EBADF. Again is no error. */
    @Override
    public void close() {
        file.closeSocket();
    }

    @Override
    public String toString() {
        return file.toString();
    }
}
