package virtio.linux;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;

/**
 * The C library's system calls, sockets apart.
 *
 * <p>Every method returns what the call does, or the negative error number, as the kernel itself
 * does. None is {@link Linker.Option#critical}, because all but a few can block.
 *
 * <p>Numbers and layouts are those of x86-64 and aarch64, which agree wherever nothing is said.
 */
final class LibC {
    static final int O_CLOEXEC = 0x80000;
    static final int F_DUPFD_CLOEXEC = 1030;
    static final int F_ADD_SEALS = 1033;

    private static final int F_OFD_SETLK = 37;
    private static final short F_WRLCK = 1;

    /** F_SEAL_SEAL, F_SEAL_SHRINK and F_SEAL_GROW. */
    static final int F_SEALS = 1 | 2 | 4;

    static final int PROT_READ = 1;
    static final int PROT_WRITE = 2;
    static final int MAP_SHARED = 1;
    static final int MAP_FIXED = 16;

    private static final int AT_EMPTY_PATH = 0x1000;
    private static final int STATX_TYPE = 1;
    private static final int STATX_SIZE = 0x200;
    private static final int S_IFMT = 0xF000;
    private static final int S_IFREG = 0x8000;
    private static final int RWF_NOWAIT = 8;

    /*
     * A thread's scratch memory, in a segment of its own rather than in a class of ours, so that a
     * thread outliving this bundle does not keep its class loader.
     *
     *   0  errno           16  struct pollfd: int fd, short events, short revents
     *   8  a counter       24  struct iovec: base, length
     *
     * Its inner addresses go out as numbers: a slice is an object.
     */
    private static final int COUNTER = 8;
    private static final int POLLFD = 16;
    private static final int IOVEC = 24;
    private static final ThreadLocal<MemorySegment> SCRATCH =
            ThreadLocal.withInitial(LibC::newScratch);

    private static final Linker LINKER = Linker.nativeLinker();

    private static final MemorySegment ONE = Arena.global().allocateFrom(JAVA_LONG, 1);
    private static final MemorySegment EMPTY = Arena.global().allocateFrom("");

    private static final MethodHandle OPEN = variadic("open", JAVA_INT, 2, ADDRESS, JAVA_INT);
    private static final MethodHandle CLOSE = handle("close", JAVA_INT, JAVA_INT);
    private static final MethodHandle ACCESS = handle("access", JAVA_INT, ADDRESS, JAVA_INT);
    private static final MethodHandle FCNTL =
            variadic("fcntl", JAVA_INT, 2, JAVA_INT, JAVA_INT, JAVA_INT);
    private static final MethodHandle FCNTL_STRUCT =
            variadic("fcntl", JAVA_INT, 2, JAVA_INT, JAVA_INT, ADDRESS);
    private static final MethodHandle IOCTL_LONG =
            variadic("ioctl", JAVA_INT, 2, JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle IOCTL_STRUCT =
            variadic("ioctl", JAVA_INT, 2, JAVA_INT, JAVA_LONG, ADDRESS);
    private static final MethodHandle READ =
            handle("read", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
    private static final MethodHandle WRITE =
            handle("write", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);

    /** Without an error number: with one, code that is not compiled well makes an object a call. */
    @SuppressWarnings("restricted")
    private static final MethodHandle WRITE_PLAIN =
            LINKER.downcallHandle(
                    LINKER.defaultLookup().findOrThrow("write"),
                    FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG));

    private static final MethodHandle PREAD =
            handle("pread", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PWRITE =
            handle("pwrite", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PREADV2 =
            handle("preadv2", JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);
    private static final MethodHandle STATX =
            handle("statx", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT, ADDRESS);
    private static final MethodHandle POLL =
            handle("poll", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT);
    private static final MethodHandle FTRUNCATE =
            handle("ftruncate", JAVA_INT, JAVA_INT, JAVA_LONG);
    private static final MethodHandle MEMFD_CREATE =
            handle("memfd_create", JAVA_INT, ADDRESS, JAVA_INT);
    private static final MethodHandle MMAP =
            handle(
                    "mmap", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT,
                    JAVA_LONG);
    private static final MethodHandle MUNMAP = handle("munmap", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle MLOCK = handle("mlock", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle GETPAGESIZE = handle("getpagesize", JAVA_INT);
    private static final MethodHandle EVENTFD = handle("eventfd", JAVA_INT, JAVA_INT, JAVA_INT);
    private static final MethodHandle EPOLL_CREATE1 = handle("epoll_create1", JAVA_INT, JAVA_INT);
    private static final MethodHandle EPOLL_CTL =
            handle("epoll_ctl", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS);
    private static final MethodHandle EPOLL_WAIT =
            handle("epoll_wait", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT);
    private static final MethodHandle SCHED_SETAFFINITY =
            handle("sched_setaffinity", JAVA_INT, JAVA_INT, JAVA_LONG, ADDRESS);

    private LibC() {}

    private static MemorySegment newScratch() {
        return Arena.ofAuto().allocate(64, 8);
    }

    /** A function whose first argument is where the error number goes. */
    @SuppressWarnings("restricted")
    static MethodHandle handle(String name, MemoryLayout result, MemoryLayout... arguments) {
        return LINKER.downcallHandle(
                LINKER.defaultLookup().findOrThrow(name),
                FunctionDescriptor.of(result, arguments),
                Linker.Option.captureCallState("errno"));
    }

    @SuppressWarnings("restricted")
    private static MethodHandle variadic(
            String name, MemoryLayout result, int fixed, MemoryLayout... arguments) {
        return LINKER.downcallHandle(
                LINKER.defaultLookup().findOrThrow(name),
                FunctionDescriptor.of(result, arguments),
                Linker.Option.captureCallState("errno"),
                Linker.Option.firstVariadicArg(fixed));
    }

    static MemorySegment scratch() {
        return SCRATCH.get();
    }

    static int result(int value, MemorySegment scratch) {
        return value == -1 ? -scratch.get(JAVA_INT, 0) : value;
    }

    static long result(long value, MemorySegment scratch) {
        return value == -1 ? -scratch.get(JAVA_INT, 0) : value;
    }

    /** What a handle throws: ours to pass on, when a segment is closed or not native. */
    static RuntimeException thrown(Throwable t) {
        if (t instanceof Error e) {
            throw e;
        }
        return t instanceof RuntimeException e ? e : new IllegalStateException(t);
    }

    static int open(MemorySegment path, int flags) {
        MemorySegment s = scratch();
        try {
            return result((int) OPEN.invokeExact(s, path, flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int close(int fd) {
        MemorySegment s = scratch();
        try {
            return result((int) CLOSE.invokeExact(s, fd), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int access(MemorySegment path, int mode) {
        MemorySegment s = scratch();
        try {
            return result((int) ACCESS.invokeExact(s, path, mode), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int fcntl(int fd, int command, int argument) {
        MemorySegment s = scratch();
        try {
            return result((int) FCNTL.invokeExact(s, fd, command, argument), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    /** Locks bytes for this open file, without waiting: EAGAIN when another has some of them. */
    static int lock(int fd, long start, long length) {
        // struct flock: short l_type, short l_whence (0), off_t l_start at 8, off_t l_len at 16.
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment s = scratch();
            MemorySegment flock = arena.allocate(32, 8);
            flock.set(JAVA_SHORT, 0, F_WRLCK);
            flock.set(JAVA_LONG, 8, start);
            flock.set(JAVA_LONG, 16, length);
            return result((int) FCNTL_STRUCT.invokeExact(s, fd, F_OFD_SETLK, flock), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int ioctl(int fd, long request, long argument) {
        MemorySegment s = scratch();
        try {
            return result((int) IOCTL_LONG.invokeExact(s, fd, request, argument), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int ioctl(int fd, long request, MemorySegment argument) {
        MemorySegment s = scratch();
        try {
            return result((int) IOCTL_STRUCT.invokeExact(s, fd, request, argument), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long read(int fd, MemorySegment into, long length) {
        MemorySegment s = scratch();
        try {
            return result((long) READ.invokeExact(s, fd, into, length), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long write(int fd, MemorySegment from, long length) {
        MemorySegment s = scratch();
        try {
            return result((long) WRITE.invokeExact(s, fd, from, length), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long pread(int fd, MemorySegment into, long length, long offset) {
        MemorySegment s = scratch();
        try {
            return result((long) PREAD.invokeExact(s, fd, into, length, offset), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long pwrite(int fd, MemorySegment from, long length, long offset) {
        MemorySegment s = scratch();
        try {
            return result((long) PWRITE.invokeExact(s, fd, from, length, offset), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    /** Writes the eight bytes of the number 1, which allocates nothing. */
    static long writeOne(int fd) {
        try {
            long n = (long) WRITE_PLAIN.invokeExact(fd, ONE.address(), (long) Long.BYTES);
            // What failed wrote nothing; the second attempt knows why, or succeeds.
            return n == -1 ? write(fd, ONE, Long.BYTES) : n;
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    /**
     * Reads eight bytes as a number without waiting, whatever the file's own mode: 0 and EAGAIN
     * when there are none.
     */
    static long readCount(int fd, String name) throws LinuxException {
        MemorySegment s = scratch();
        s.set(JAVA_LONG, COUNTER, 0);
        long iovec = s.address() + IOVEC;
        s.set(JAVA_LONG, IOVEC, s.address() + COUNTER);
        s.set(JAVA_LONG, IOVEC + 8, Long.BYTES);
        long n;
        try {
            n = result((long) PREADV2.invokeExact(s, fd, iovec, 1, -1L, RWF_NOWAIT), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
        if (n < 0 && n != -Errno.EAGAIN) {
            throw new LinuxException("read", name, (int) -n);
        }
        return s.get(JAVA_LONG, COUNTER);
    }

    /** Waits for events on one file: those that came, 0 after the time, or an error. */
    static int poll(int fd, int events, int timeoutMillis) {
        MemorySegment s = scratch();
        s.set(JAVA_INT, POLLFD, fd);
        s.set(JAVA_SHORT, POLLFD + 4, (short) events);
        s.set(JAVA_SHORT, POLLFD + 6, (short) 0);
        try {
            int n = (int) POLL.invokeExact(s, s.address() + POLLFD, 1L, timeoutMillis);
            return n > 0 ? s.get(JAVA_SHORT, POLLFD + 6) & 0xFFFF : result(n, s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    /** The file's size: of a regular file, what it has; of others, Long.MAX_VALUE. */
    static long mappableSize(int fd) {
        return statx(fd, true);
    }

    static long size(int fd) {
        return statx(fd, false);
    }

    private static long statx(int fd, boolean mappable) {
        // struct statx: __u16 stx_mode at 28, __u64 stx_size at 40.
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment s = scratch();
            MemorySegment stat = arena.allocate(256, 8);
            int mask = STATX_TYPE | STATX_SIZE;
            int error = (int) STATX.invokeExact(s, fd, EMPTY, AT_EMPTY_PATH, mask, stat);
            if (error != 0) {
                return result(error, s);
            }
            boolean regular = (stat.get(JAVA_SHORT, 28) & S_IFMT) == S_IFREG;
            return mappable && !regular ? Long.MAX_VALUE : stat.get(JAVA_LONG, 40);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int ftruncate(int fd, long length) {
        MemorySegment s = scratch();
        try {
            return result((int) FTRUNCATE.invokeExact(s, fd, length), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int memfdCreate(String name, int flags) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment s = scratch();
            return result((int) MEMFD_CREATE.invokeExact(s, arena.allocateFrom(name), flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long mmap(long address, long length, int protection, int flags, int fd, long offset) {
        MemorySegment s = scratch();
        try {
            return result(
                    (long) MMAP.invokeExact(s, address, length, protection, flags, fd, offset), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int munmap(long address, long length) {
        MemorySegment s = scratch();
        try {
            return result((int) MUNMAP.invokeExact(s, address, length), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int mlock(long address, long length) {
        MemorySegment s = scratch();
        try {
            return result((int) MLOCK.invokeExact(s, address, length), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int getpagesize() {
        try {
            return (int) GETPAGESIZE.invokeExact(scratch());
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int eventfd(int initial, int flags) {
        MemorySegment s = scratch();
        try {
            return result((int) EVENTFD.invokeExact(s, initial, flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int epollCreate1(int flags) {
        MemorySegment s = scratch();
        try {
            return result((int) EPOLL_CREATE1.invokeExact(s, flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int epollCtl(int epfd, int operation, int fd, MemorySegment event) {
        MemorySegment s = scratch();
        try {
            return result((int) EPOLL_CTL.invokeExact(s, epfd, operation, fd, event), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int epollWait(int epfd, MemorySegment events, int maxEvents, int timeoutMillis) {
        MemorySegment s = scratch();
        try {
            return result(
                    (int) EPOLL_WAIT.invokeExact(s, epfd, events, maxEvents, timeoutMillis), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int schedSetaffinity(int pid, MemorySegment set) {
        MemorySegment s = scratch();
        try {
            return result((int) SCHED_SETAFFINITY.invokeExact(s, pid, set.byteSize(), set), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }
}
