package virtio.linux;

/**
 * A counter in the kernel that one side adds to and the other waits for (eventfd(2)): the kicks and
 * calls of virtqueues.
 *
 * <p>A peer may hand over a stream socket to signal on instead, as Linux's virtio_uml does: eight
 * bytes are written to it for each signal, as long as there is room.
 *
 * <p>Every call may be made from any thread and allocates nothing. Whether the file blocks is not
 * relied upon: the other holders of the same file can change that at any time, and some do.
 */
public final class EventFd implements AutoCloseable {
    private static final int EFD_CLOEXEC = 0x80000;
    private static final int EFD_NONBLOCK = 0x800;

    private final FileDescriptor file;

    private EventFd(FileDescriptor file) {
        this.file = file;
    }

    /** A new one, at 0. */
    public static EventFd create() throws LinuxException {
        int fd = LibC.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return new EventFd(FileDescriptor.own(fd, "eventfd", "eventfd"));
    }

    /** One that somebody else has made; owns {@code file} from now on. */
    public static EventFd of(FileDescriptor file) {
        return new EventFd(file);
    }

    /** The descriptor, to wait on or to give away; it stays this object's. */
    public FileDescriptor file() {
        return file;
    }

    /**
     * Adds 1 (write(2)); a counter that is full already says what there is to say.
     *
     * @throws LinuxException EBADF when closed
     */
    public void signal() throws LinuxException {
        int fd = file.acquire("write");
        try {
            long n;
            do {
                n = LibC.writeOne(fd);
            } while (n == -Errno.EINTR);
            if (n != -Errno.EAGAIN) {
                FileDescriptor.check(n, "write", file.name());
            }
        } finally {
            file.release();
        }
    }

    /**
     * Takes the count and sets it to 0, without waiting (preadv2(2) with RWF_NOWAIT).
     *
     * @return the count, as an unsigned number; 0 when nobody has signalled
     * @throws LinuxException EBADF when closed
     */
    public long drain() throws LinuxException {
        int fd = file.acquire("read");
        try {
            return LibC.readCount(fd, file.name());
        } finally {
            file.release();
        }
    }

    /**
     * Closes; again is no error.
     *
     * <p>A peer that fills the counter of a file that blocks holds up {@link #signal} in another
     * thread; that ends here.
     */
    @Override
    public void close() {
        int fd;
        try {
            fd = file.acquire("close");
        } catch (LinuxException e) {
            return;
        }
        file.close();
        try {
            // Only then: an event that nobody has taken yet is the peer's to take.
            if (file.users() > 1) {
                LibSocket.shutdown(fd); // of no effect, unless it is a socket
                LibC.readCount(fd, file.name());
            }
        } catch (LinuxException e) {
            // No eventfd, then, and nobody is held up by one.
        } finally {
            file.release();
        }
    }

    @Override
    public String toString() {
        return file.toString();
    }
}
