package virtio.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * An open file of this process, owned: closed once, by {@link #close}.
 *
 * <p>Every call may be made from any thread. A close during somebody else's call marks the
 * descriptor closed at once and gives its number back when that call returns, so that a number that
 * the kernel has handed out anew is never touched. Calls on a closed descriptor fail with EBADF.
 *
 * <p>Buffers are native segments. All descriptors are close-on-exec. Reads and writes that a signal
 * interrupts go on by themselves, as the JVM installs its handlers with SA_RESTART.
 */
public final class FileDescriptor implements AutoCloseable {
    public static final int O_RDONLY = 0;
    public static final int O_RDWR = 2;
    public static final int O_NONBLOCK = 0x800;

    /** Mappings of device memory are not cached. */
    public static final int O_SYNC = 0x101000;

    /** Poll and epoll event: there is something to read, or to accept. */
    public static final int IN = 0x1;

    /** Poll and epoll event: a write would not block. */
    public static final int OUT = 0x4;

    /** Poll and epoll event, reported unasked: the file is in error. */
    public static final int ERR = 0x8;

    /** Poll and epoll event, reported unasked: the other end is gone. */
    public static final int HUP = 0x10;

    private static final VarHandle STATE;
    private static final AtomicInteger LIVE = new AtomicInteger();
    private static final int CLOSED = 1;
    private static final int USER = 2;

    static {
        try {
            STATE = MethodHandles.lookup().findVarHandle(FileDescriptor.class, "state", int.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    private final int fd;
    private final String name;

    /** CLOSED, plus USER for each call under way. */
    private volatile int state;

    private FileDescriptor(int fd, String name) {
        this.fd = fd;
        this.name = name;
        LIVE.incrementAndGet();
    }

    /** How many descriptors of this class are open in the process: a test's measure of leaks. */
    public static int live() {
        return LIVE.get();
    }

    /**
     * Opens an existing file (open(2)).
     *
     * @param flags one of the O_ constants, or several joined
     */
    public static FileDescriptor open(Path path, int flags) throws LinuxException {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment name = arena.allocateFrom(path.toString());
            int fd;
            do {
                fd = LibC.open(name, flags | LibC.O_CLOEXEC);
            } while (fd == -Errno.EINTR);
            return own(fd, "open", path.toString());
        }
    }

    /**
     * Opens a socket that needs no address to be written to and read from, as netlink's
     * (socket(2)); for UNIX sockets there is {@link UnixSocket}.
     *
     * @param family as AF_NETLINK, 16
     * @param type as SOCK_RAW, 3
     * @param protocol of the family
     */
    public static FileDescriptor socket(int family, int type, int protocol) throws LinuxException {
        int fd = LibSocket.socket(family, type | LibSocket.SOCK_CLOEXEC, protocol);
        return own(fd, "socket", "socket of family " + family);
    }

    /**
     * Takes ownership of a number that the kernel has given, for instance as an ioctl's result.
     *
     * @param name what error messages call it
     * @throws IllegalArgumentException when {@code fd} is negative
     */
    public static FileDescriptor of(int fd, String name) {
        if (fd < 0) {
            throw new IllegalArgumentException(name + ": no file descriptor: " + fd);
        }
        return new FileDescriptor(fd, name);
    }

    /** Owns a call's result, a descriptor or a negative error number. */
    static FileDescriptor own(int result, String call, String name) throws LinuxException {
        check(result, call, name);
        return new FileDescriptor(result, name);
    }

    static long check(long result, String call, String what) throws LinuxException {
        if (result < 0) {
            throw new LinuxException(call, what, (int) -result);
        }
        return result;
    }

    /**
     * The number, to be written into a structure for the kernel; the caller keeps this object open
     * meanwhile.
     *
     * @throws IllegalStateException when closed
     */
    public int fd() {
        if (!isOpen()) {
            throw new IllegalStateException(name + " is closed");
        }
        return fd;
    }

    public boolean isOpen() {
        return (state & CLOSED) == 0;
    }

    /** Another descriptor of the same open file, to be closed by itself. */
    public FileDescriptor dup() throws LinuxException {
        int held = acquire("dup");
        try {
            return own(LibC.fcntl(held, LibC.F_DUPFD_CLOEXEC, 0), "dup", name);
        } finally {
            release();
        }
    }

    /** The file's size in bytes; 0 for devices (statx(2)). */
    public long sizeBytes() throws LinuxException {
        int held = acquire("statx");
        try {
            return check(LibC.size(held), "statx", name);
        } finally {
            release();
        }
    }

    /**
     * Takes part of the file for this descriptor alone, until it is closed, among those who ask in
     * this way (fcntl(2), F_OFD_SETLK); for writing.
     *
     * @throws LinuxException EAGAIN when somebody else has some of it
     */
    public void lock(long offset, long length) throws LinuxException {
        int held = acquire("lock");
        try {
            check(LibC.lock(held, offset, length), "lock", name);
        } finally {
            release();
        }
    }

    /**
     * One read(2) into {@code into}.
     *
     * @return bytes read, 0 at the end of the file
     * @throws LinuxException EAGAIN when the file does not block and nothing is there
     */
    public long read(MemorySegment into) throws LinuxException {
        int held = acquire("read");
        try {
            return check(LibC.read(held, into, into.byteSize()), "read", name);
        } finally {
            release();
        }
    }

    /**
     * One write(2) from {@code from}.
     *
     * @return bytes written, possibly fewer than given
     */
    public long write(MemorySegment from) throws LinuxException {
        int held = acquire("write");
        try {
            return check(LibC.write(held, from, from.byteSize()), "write", name);
        } finally {
            release();
        }
    }

    /** One pread(2) at {@code offset} in bytes; otherwise as {@link #read}. */
    public long pread(MemorySegment into, long offset) throws LinuxException {
        int held = acquire("pread");
        try {
            return check(LibC.pread(held, into, into.byteSize(), offset), "pread", name);
        } finally {
            release();
        }
    }

    /** One pwrite(2) at {@code offset} in bytes; otherwise as {@link #write}. */
    public long pwrite(MemorySegment from, long offset) throws LinuxException {
        int held = acquire("pwrite");
        try {
            return check(LibC.pwrite(held, from, from.byteSize(), offset), "pwrite", name);
        } finally {
            release();
        }
    }

    /**
     * ioctl(2) with a number as its argument.
     *
     * @param request the whole request code, direction and size included
     * @return the call's result, 0 or positive
     */
    public int ioctl(int request, long argument) throws LinuxException {
        int held = acquire("ioctl");
        try {
            int result = LibC.ioctl(held, Integer.toUnsignedLong(request), argument);
            return (int) check(result, ioctlName(request), name);
        } finally {
            release();
        }
    }

    /** ioctl(2) with a structure as its argument; otherwise as {@link #ioctl(int, long)}. */
    public int ioctl(int request, MemorySegment argument) throws LinuxException {
        int held = acquire("ioctl");
        try {
            int result = LibC.ioctl(held, Integer.toUnsignedLong(request), argument);
            return (int) check(result, ioctlName(request), name);
        } finally {
            release();
        }
    }

    private static String ioctlName(int request) {
        return "ioctl 0x" + Integer.toHexString(request);
    }

    /**
     * Waits until one of {@code events} has come (poll(2)).
     *
     * <p>A close by another thread does not end the wait, unless this is a socket.
     *
     * @param events of {@link #IN} and {@link #OUT}
     * @param timeoutMillis 0 to look only, negative to wait for ever
     * @return the events that have come, {@link #ERR} and {@link #HUP} included; 0 after the time
     */
    public int poll(int events, int timeoutMillis) throws LinuxException {
        int held = acquire("poll");
        try {
            long end = System.nanoTime() + timeoutMillis * 1_000_000L;
            int result = LibC.poll(held, events, timeoutMillis);
            while (result == -Errno.EINTR) {
                result = LibC.poll(held, events, timeoutMillis < 0 ? -1 : millisUntil(end));
            }
            return (int) check(result, "poll", name);
        } finally {
            release();
        }
    }

    /** Milliseconds until a time of System.nanoTime, rounded up, 0 when it is over. */
    static int millisUntil(long end) {
        return (int) Math.max(0, (end - System.nanoTime() + 999_999) / 1_000_000);
    }

    /**
     * Holds the number against reuse until {@link #release}.
     *
     * @throws LinuxException EBADF when closed
     */
    int acquire(String call) throws LinuxException {
        int seen;
        do {
            seen = state;
            if ((seen & CLOSED) != 0) {
                throw new LinuxException(call, name, Errno.EBADF);
            }
        } while (!STATE.compareAndSet(this, seen, seen + USER));
        return fd;
    }

    void release() {
        if ((int) STATE.getAndAdd(this, -USER) == USER + CLOSED) {
            giveBack();
        }
    }

    /** How many calls are under way. */
    int users() {
        return state / USER;
    }

    /** Closes; again is no error. What close(2) says is of no use to anybody and is dropped. */
    @Override
    public void close() {
        int before = (int) STATE.getAndBitwiseOr(this, CLOSED);
        if (before == 0) {
            giveBack();
        }
    }

    /** Closes a socket, ending what others are waiting for on it. */
    void closeSocket() {
        int held;
        try {
            held = acquire("close");
        } catch (LinuxException e) {
            return;
        }
        // Marked first, so that who is woken up knows by whom.
        STATE.getAndBitwiseOr(this, CLOSED);
        // Not without need: it is shut down for all who hold it, and it may have been given away.
        if (users() > 1) {
            LibSocket.shutdown(held);
        }
        release();
    }

    private void giveBack() {
        LibC.close(fd);
        LIVE.decrementAndGet();
    }

    String name() {
        return name;
    }

    @Override
    public String toString() {
        return name + " (fd " + fd + (isOpen() ? ")" : ", closed)");
    }
}
