package virtio.linux;

/**
 * Error numbers of Linux (include/uapi/asm-generic/errno-base.h and errno.h; the same on x86-64 and
 * aarch64), as far as the calls made here can return them.
 */
public final class Errno {
    public static final int EPERM = 1;
    public static final int ENOENT = 2;
    public static final int ESRCH = 3;
    public static final int EINTR = 4;
    public static final int EIO = 5;
    public static final int ENXIO = 6;
    public static final int E2BIG = 7;
    public static final int EBADF = 9;
    public static final int EAGAIN = 11;
    public static final int ENOMEM = 12;
    public static final int EACCES = 13;
    public static final int EFAULT = 14;
    public static final int EBUSY = 16;
    public static final int EEXIST = 17;
    public static final int EXDEV = 18;
    public static final int ENODEV = 19;
    public static final int ENOTDIR = 20;
    public static final int EISDIR = 21;
    public static final int EINVAL = 22;
    public static final int ENFILE = 23;
    public static final int EMFILE = 24;
    public static final int ENOTTY = 25;
    public static final int ETXTBSY = 26;
    public static final int EFBIG = 27;
    public static final int ENOSPC = 28;
    public static final int ESPIPE = 29;
    public static final int EROFS = 30;
    public static final int EPIPE = 32;
    public static final int ERANGE = 34;
    public static final int EDEADLK = 35;
    public static final int ENAMETOOLONG = 36;
    public static final int ENOSYS = 38;
    public static final int ELOOP = 40;
    public static final int EPROTO = 71;
    public static final int EOVERFLOW = 75;
    public static final int EBADFD = 77;
    public static final int ENOTSOCK = 88;
    public static final int EMSGSIZE = 90;
    public static final int EPROTOTYPE = 91;
    public static final int EOPNOTSUPP = 95;
    public static final int EADDRINUSE = 98;
    public static final int ECONNABORTED = 103;
    public static final int ECONNRESET = 104;
    public static final int ENOBUFS = 105;
    public static final int EISCONN = 106;
    public static final int ENOTCONN = 107;
    public static final int ESHUTDOWN = 108;
    public static final int ETOOMANYREFS = 109;
    public static final int ETIMEDOUT = 110;
    public static final int ECONNREFUSED = 111;
    public static final int ECANCELED = 125;

    private Errno() {}

    /** Text and name of an error number, as in {@code "permission denied (EACCES)"}. */
    public static String describe(int errno) {
        return switch (errno) {
            case EPERM -> "operation not permitted (EPERM)";
            case ENOENT -> "no such file or directory (ENOENT)";
            case ESRCH -> "no such process (ESRCH)";
            case EINTR -> "interrupted by a signal (EINTR)";
            case EIO -> "input/output error (EIO)";
            case ENXIO -> "no such device or address (ENXIO)";
            case E2BIG -> "too big (E2BIG)";
            case EBADF -> "bad file descriptor (EBADF)";
            case EAGAIN -> "temporarily unavailable (EAGAIN)";
            case ENOMEM -> "out of memory (ENOMEM)";
            case EACCES -> "permission denied (EACCES)";
            case EFAULT -> "bad address (EFAULT)";
            case EBUSY -> "device or resource busy (EBUSY)";
            case EEXIST -> "exists already (EEXIST)";
            case EXDEV -> "invalid cross-device link (EXDEV)";
            case ENODEV -> "no such device (ENODEV)";
            case ENOTDIR -> "not a directory (ENOTDIR)";
            case EISDIR -> "is a directory (EISDIR)";
            case EINVAL -> "invalid argument (EINVAL)";
            case ENFILE -> "too many open files in the system (ENFILE)";
            case EMFILE -> "too many open files in the process (EMFILE)";
            case ENOTTY -> "request not known to this device (ENOTTY)";
            case ETXTBSY -> "file busy (ETXTBSY)";
            case EFBIG -> "file too large (EFBIG)";
            case ENOSPC -> "no space left (ENOSPC)";
            case ESPIPE -> "not seekable (ESPIPE)";
            case EROFS -> "read-only file system (EROFS)";
            case EPIPE -> "peer has closed (EPIPE)";
            case ERANGE -> "out of range (ERANGE)";
            case EDEADLK -> "would deadlock (EDEADLK)";
            case ENAMETOOLONG -> "name too long (ENAMETOOLONG)";
            case ENOSYS -> "not implemented by this kernel (ENOSYS)";
            case ELOOP -> "too many symbolic links (ELOOP)";
            case EPROTO -> "protocol error (EPROTO)";
            case EOVERFLOW -> "value too large (EOVERFLOW)";
            case EBADFD -> "file descriptor in bad state (EBADFD)";
            case ENOTSOCK -> "not a socket (ENOTSOCK)";
            case EMSGSIZE -> "message too long (EMSGSIZE)";
            case EPROTOTYPE -> "wrong type of socket (EPROTOTYPE)";
            case EOPNOTSUPP -> "not supported (EOPNOTSUPP)";
            case EADDRINUSE -> "address in use (EADDRINUSE)";
            case ECONNABORTED -> "connection aborted (ECONNABORTED)";
            case ECONNRESET -> "connection reset by peer (ECONNRESET)";
            case ENOBUFS -> "no buffer space (ENOBUFS)";
            case EISCONN -> "connected already (EISCONN)";
            case ENOTCONN -> "not connected (ENOTCONN)";
            case ESHUTDOWN -> "has been shut down (ESHUTDOWN)";
            case ETOOMANYREFS -> "too many descriptors in flight (ETOOMANYREFS)";
            case ETIMEDOUT -> "timed out (ETIMEDOUT)";
            case ECONNREFUSED -> "connection refused (ECONNREFUSED)";
            case ECANCELED -> "cancelled (ECANCELED)";
            default -> "error number " + errno;
        };
    }
}
