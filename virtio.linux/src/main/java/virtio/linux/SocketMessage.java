package virtio.linux;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/** The structures for one sendmsg(2) or recvmsg(2) at a time, on 64-bit Linux. */
final class SocketMessage {
    /*
     * struct msghdr              struct cmsghdr
     *   0 name, 8 namelen          0 len, header included
     *  16 iov, 24 iovlen           8 level
     *  32 control, 40 controllen  12 type
     *  48 flags                   16 data: the descriptors
     */
    static final int MAX_FDS = 32;

    private static final int NAME = 0;
    private static final int NAME_LENGTH = 8;
    private static final int IOV = 16;
    private static final int IOV_LENGTH = 24;
    private static final int CONTROL = 32;
    private static final int CONTROL_LENGTH = 40;
    private static final int FLAGS = 48;
    private static final int MSGHDR_BYTES = 56;
    private static final int LEVEL = 8;
    private static final int TYPE = 12;
    private static final int CMSGHDR_BYTES = 16;
    private static final int CONTROL_BYTES = CMSGHDR_BYTES + MAX_FDS * Integer.BYTES;

    private final MemorySegment header;
    private final MemorySegment iovec;
    private final MemorySegment control;
    private int descriptors;

    SocketMessage() {
        Arena arena = Arena.ofAuto();
        header = arena.allocate(MSGHDR_BYTES, 8);
        iovec = arena.allocate(16, 8);
        control = arena.allocate(CONTROL_BYTES, 8);
        header.set(JAVA_LONG, IOV, iovec.address());
        header.set(JAVA_LONG, IOV_LENGTH, 1);
    }

    /** Forgets the descriptors to send. */
    void clear() {
        descriptors = 0;
    }

    void addDescriptor(int fd) {
        control.set(JAVA_INT, CMSGHDR_BYTES + (long) descriptors++ * Integer.BYTES, fd);
    }

    /** One sendmsg of what {@code bytes} has from {@code offset}, and of the descriptors. */
    long send(int fd, MemorySegment bytes, long offset) {
        int length = CMSGHDR_BYTES + descriptors * Integer.BYTES;
        control.set(JAVA_LONG, 0, length);
        control.set(JAVA_INT, LEVEL, LibSocket.SOL_SOCKET);
        control.set(JAVA_INT, TYPE, LibSocket.SCM_RIGHTS);
        // The end of the last control message is aligned, its length is not.
        point(bytes, offset, descriptors == 0 ? 0 : length + 7 & ~7);
        try {
            int flags = LibSocket.MSG_DONTWAIT | LibSocket.MSG_NOSIGNAL;
            return LibSocket.sendmsg(fd, header, flags);
        } finally {
            java.lang.ref.Reference.reachabilityFence(bytes);
        }
    }

    /** One recvmsg into what {@code into} has from {@code offset}; adds the descriptors. */
    long receive(int fd, MemorySegment into, long offset, List<FileDescriptor> came, String name)
            throws LinuxException {
        point(into, offset, CONTROL_BYTES);
        int flags = LibSocket.MSG_DONTWAIT | LibSocket.MSG_CMSG_CLOEXEC;
        long n = LibSocket.recvmsg(fd, header, flags);
        if (n < 0) {
            return n;
        }
        takeDescriptors(came, "from " + name);
        if ((header.get(JAVA_INT, FLAGS) & LibSocket.MSG_CTRUNC) != 0 || came.size() > MAX_FDS) {
            throw new LinuxException(
                    "recvmsg",
                    "%s: descriptors, more than %d or than can be opened".formatted(name, MAX_FDS),
                    Errno.EMSGSIZE);
        }
        return n;
    }

    private void takeDescriptors(List<FileDescriptor> came, String name) {
        long end = header.get(JAVA_LONG, CONTROL_LENGTH);
        long at = 0;
        while (at + CMSGHDR_BYTES <= end) {
            long length = control.get(JAVA_LONG, at);
            if (length < CMSGHDR_BYTES || at + length > end) {
                return;
            }
            if (control.get(JAVA_INT, at + LEVEL) == LibSocket.SOL_SOCKET
                    && control.get(JAVA_INT, at + TYPE) == LibSocket.SCM_RIGHTS) {
                for (long i = at + CMSGHDR_BYTES; i < at + length; i += Integer.BYTES) {
                    came.add(FileDescriptor.of(control.get(JAVA_INT, i), name));
                }
            }
            at += length + 7 & ~7L;
        }
    }

    private void point(MemorySegment bytes, long offset, long controlLength) {
        if (!bytes.isNative()) {
            throw new IllegalArgumentException("native memory is needed: " + bytes);
        }
        iovec.set(JAVA_LONG, 0, bytes.address() + offset);
        iovec.set(JAVA_LONG, 8, bytes.byteSize() - offset);
        header.set(JAVA_LONG, NAME, 0);
        header.set(JAVA_INT, NAME_LENGTH, 0);
        header.set(JAVA_LONG, CONTROL, controlLength == 0 ? 0 : control.address());
        header.set(JAVA_LONG, CONTROL_LENGTH, controlLength);
        header.set(JAVA_INT, FLAGS, 0);
    }
}
