package virtio.linux;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;

/** A UNIX stream socket that others connect to. */
public final class UnixListener implements AutoCloseable {
    private static final int BACKLOG = 16;
    private static final int S_IFMT = 0xF000;
    private static final int S_IFSOCK = 0xC000;

    private final FileDescriptor file;
    private final Path path;
    private final Object identity;

    private UnixListener(FileDescriptor file, Path path, Object identity) {
        this.file = file;
        this.path = path;
        this.identity = identity;
    }

    /**
     * Listens on {@code path}.
     *
     * <p>A socket that nobody answers on is left from a process that died, and is replaced.
     *
     * @throws LinuxException EADDRINUSE when somebody answers, or when the file is no socket;
     *     ENAMETOOLONG beyond 107 bytes
     */
    public static UnixListener listen(Path path) throws IOException {
        FileDescriptor file = socket(path);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment address = UnixSocket.address(arena, path);
            int result = LibSocket.bind(file.fd(), address);
            if (result == -Errno.EADDRINUSE) {
                removeStale(path, address);
                result = LibSocket.bind(file.fd(), address);
            }
            FileDescriptor.check(result, "bind", path.toString());
            Object identity = identity(path);
            int listening = LibSocket.listen(file.fd(), BACKLOG);
            FileDescriptor.check(listening, "listen", path.toString());
            return new UnixListener(file, path, identity);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    private static FileDescriptor socket(Path path) throws LinuxException {
        int type = LibSocket.SOCK_STREAM | LibSocket.SOCK_CLOEXEC | LibSocket.SOCK_NONBLOCK;
        return FileDescriptor.own(LibSocket.socket(type), "socket", "unix:" + path);
    }

    private static void removeStale(Path path, MemorySegment address) throws IOException {
        int mode = (int) Files.getAttribute(path, "unix:mode", LinkOption.NOFOLLOW_LINKS);
        if ((mode & S_IFMT) != S_IFSOCK) {
            throw new LinuxException("bind", path + " (no socket)", Errno.EADDRINUSE);
        }
        try (FileDescriptor probe = socket(path)) {
            int result = LibSocket.connect(probe.fd(), address);
            if (result != -Errno.ECONNREFUSED) {
                throw new LinuxException(
                        "bind",
                        path + (result == 0 ? " (somebody answers there)" : ""),
                        Errno.EADDRINUSE);
            }
        }
        Files.deleteIfExists(path);
    }

    private static Object identity(Path path) throws IOException {
        return Files.getAttribute(path, "fileKey", LinkOption.NOFOLLOW_LINKS);
    }

    /** The descriptor, to wait on; it stays this object's, and is closed by this object. */
    public FileDescriptor file() {
        return file;
    }

    /**
     * Waits for somebody to connect.
     *
     * @param timeoutMillis 0 to look only, negative to wait for ever
     * @throws SocketTimeoutException when nobody connects in time
     * @throws LinuxException EBADF when closed, before or meanwhile
     */
    public UnixSocket accept(int timeoutMillis) throws IOException {
        long end = System.nanoTime() + timeoutMillis * 1_000_000L;
        int fd = file.acquire("accept");
        try {
            while (true) {
                int result = LibSocket.accept4(fd, LibSocket.SOCK_CLOEXEC);
                if (result >= 0) {
                    return new UnixSocket(FileDescriptor.of(result, file.name()));
                }
                if (!file.isOpen()) {
                    throw new LinuxException("accept", file.name(), Errno.EBADF);
                }
                if (result == -Errno.EAGAIN) {
                    int wait = timeoutMillis < 0 ? -1 : FileDescriptor.millisUntil(end);
                    result = LibC.poll(fd, FileDescriptor.IN, wait);
                    if (result == 0) {
                        throw new SocketTimeoutException(
                                "accept %s: nobody in %d ms".formatted(file.name(), timeoutMillis));
                    }
                }
                if (result != -Errno.EINTR && result != -Errno.ECONNABORTED) {
                    FileDescriptor.check(result, "accept", file.name());
                }
            }
        } finally {
            file.release();
        }
    }

    /**
     * Listens no more, and removes the file unless another listener has replaced it. Again is no
     * error.
     */
    @Override
    public void close() {
        if (file.isOpen()) {
            file.closeSocket();
            try {
                if (identity.equals(identity(path))) {
                    Files.delete(path);
                }
            } catch (IOException e) {
                // Somebody has removed it, or its directory.
            }
        }
    }

    @Override
    public String toString() {
        return file.toString();
    }
}
