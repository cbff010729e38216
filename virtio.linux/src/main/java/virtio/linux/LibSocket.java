package virtio.linux;

import static virtio.linux.LibC.handle;
import static virtio.linux.LibC.result;
import static virtio.linux.LibC.scratch;
import static virtio.linux.LibC.thrown;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;

/** The C library's calls on sockets, in the manner of {@link LibC}. */
final class LibSocket {
    static final int AF_UNIX = 1;
    static final int SOCK_STREAM = 1;
    static final int SOCK_NONBLOCK = 0x800;
    static final int SOCK_CLOEXEC = 0x80000;
    static final int SOL_SOCKET = 1;
    static final int SO_SNDTIMEO = 21;
    static final int SCM_RIGHTS = 1;
    static final int SHUT_RDWR = 2;
    static final int MSG_CTRUNC = 0x8;
    static final int MSG_DONTWAIT = 0x40;
    static final int MSG_NOSIGNAL = 0x4000;
    static final int MSG_CMSG_CLOEXEC = 0x40000000;

    private static final MethodHandle SOCKET =
            handle("socket", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT);
    private static final MethodHandle SOCKETPAIR =
            handle("socketpair", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS);
    private static final MethodHandle BIND = handle("bind", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT);
    private static final MethodHandle LISTEN = handle("listen", JAVA_INT, JAVA_INT, JAVA_INT);
    private static final MethodHandle ACCEPT4 =
            handle("accept4", JAVA_INT, JAVA_INT, ADDRESS, ADDRESS, JAVA_INT);
    private static final MethodHandle CONNECT =
            handle("connect", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT);
    private static final MethodHandle SHUTDOWN = handle("shutdown", JAVA_INT, JAVA_INT, JAVA_INT);
    private static final MethodHandle SETSOCKOPT =
            handle("setsockopt", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT);
    private static final MethodHandle SENDMSG =
            handle("sendmsg", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_INT);
    private static final MethodHandle RECVMSG =
            handle("recvmsg", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_INT);

    private LibSocket() {}

    static int socket(int type) {
        return socket(AF_UNIX, type, 0);
    }

    static int socket(int family, int type, int protocol) {
        MemorySegment s = scratch();
        try {
            return result((int) SOCKET.invokeExact(s, family, type, protocol), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int socketpair(int type, MemorySegment two) {
        MemorySegment s = scratch();
        try {
            return result((int) SOCKETPAIR.invokeExact(s, AF_UNIX, type, 0, two), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int bind(int fd, MemorySegment address) {
        MemorySegment s = scratch();
        try {
            return result((int) BIND.invokeExact(s, fd, address, (int) address.byteSize()), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int listen(int fd, int backlog) {
        MemorySegment s = scratch();
        try {
            return result((int) LISTEN.invokeExact(s, fd, backlog), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int accept4(int fd, int flags) {
        MemorySegment s = scratch();
        MemorySegment none = MemorySegment.NULL;
        try {
            return result((int) ACCEPT4.invokeExact(s, fd, none, none, flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int connect(int fd, MemorySegment address) {
        MemorySegment s = scratch();
        try {
            return result((int) CONNECT.invokeExact(s, fd, address, (int) address.byteSize()), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int shutdown(int fd) {
        MemorySegment s = scratch();
        try {
            return result((int) SHUTDOWN.invokeExact(s, fd, SHUT_RDWR), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static int setsockopt(int fd, int option, MemorySegment value) {
        MemorySegment s = scratch();
        int length = (int) value.byteSize();
        try {
            return result(
                    (int) SETSOCKOPT.invokeExact(s, fd, SOL_SOCKET, option, value, length), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long sendmsg(int fd, MemorySegment message, int flags) {
        MemorySegment s = scratch();
        try {
            return result((long) SENDMSG.invokeExact(s, fd, message, flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }

    static long recvmsg(int fd, MemorySegment message, int flags) {
        MemorySegment s = scratch();
        try {
            return result((long) RECVMSG.invokeExact(s, fd, message, flags), s);
        } catch (Throwable t) {
            throw thrown(t);
        }
    }
}
