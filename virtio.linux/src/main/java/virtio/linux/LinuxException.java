package virtio.linux;

import java.io.IOException;

/**
 * A system call that failed.
 *
 * <p>The message names the call, what it was made on, and the error: {@code "open /dev/vfio/12:
 * permission denied (EACCES)"}.
 */
public final class LinuxException extends IOException {
    private static final long serialVersionUID = 1L;

    private final String call;
    private final int errno;

    /**
     * @param call the system call's name
     * @param what what the call was made on: a path, or a descriptor's name
     * @param errno the error number, positive
     */
    public LinuxException(String call, String what, int errno) {
        super(call + " " + what + ": " + Errno.describe(errno));
        this.call = call;
        this.errno = errno;
    }

    /** The system call's name. */
    public String call() {
        return call;
    }

    /** The error number, one of {@link Errno} or another of the kernel's. */
    public int errno() {
        return errno;
    }
}
