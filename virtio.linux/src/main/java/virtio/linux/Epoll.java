package virtio.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Waiting for many files at once (epoll(7)).
 *
 * <p>{@link #await} and the results that it leaves behind belong to one thread; everything else may
 * be called from any. Waiting allocates nothing.
 *
 * <p>Remove a file before closing it: as long as anybody else holds the same open file, the kernel
 * goes on reporting it, and nobody can remove it any more.
 */
public final class Epoll implements AutoCloseable {
    /** Report a change once, instead of a state for as long as it lasts. */
    public static final int EDGE = 1 << 31;

    private static final int EPOLL_CLOEXEC = 0x80000;
    private static final int ADD = 1;
    private static final int DELETE = 2;

    /** What the own wake-up carries: no user's, because add refuses it. */
    private static final long WAKE = Long.MIN_VALUE;

    /*
     * struct epoll_event { __u32 events; __u64 data; }, packed on x86-64 only
     * (include/uapi/linux/eventpoll.h, EPOLL_PACKED).
     */
    private static final boolean PACKED = System.getProperty("os.arch").equals("amd64");
    private static final long DATA = PACKED ? 4 : 8;
    private static final long EVENT_BYTES = PACKED ? 12 : 16;
    private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT_UNALIGNED;
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;

    private final FileDescriptor file;
    private final EventFd wake;
    private final int maxEvents;
    private final MemorySegment events;

    private Epoll(FileDescriptor file, EventFd wake, int maxEvents) {
        this.file = file;
        this.wake = wake;
        this.maxEvents = maxEvents;
        this.events = Arena.ofAuto().allocate(EVENT_BYTES * maxEvents, 8);
    }

    /**
     * Waits for nothing yet.
     *
     * @param maxEvents how many files one {@link #await} reports at most; others follow in the next
     */
    public static Epoll create(int maxEvents) throws LinuxException {
        if (maxEvents <= 0) {
            throw new IllegalArgumentException("maxEvents " + maxEvents + ": 1 or more");
        }
        int fd = LibC.epollCreate1(EPOLL_CLOEXEC);
        FileDescriptor file = FileDescriptor.own(fd, "epoll_create1", "epoll");
        EventFd wake = null;
        try {
            wake = EventFd.create();
            Epoll epoll = new Epoll(file, wake, maxEvents);
            epoll.control(ADD, wake.file(), FileDescriptor.IN, WAKE);
            return epoll;
        } catch (LinuxException e) {
            if (wake != null) {
                wake.close();
            }
            file.close();
            throw e;
        }
    }

    /**
     * Waits for {@code target} too.
     *
     * @param wanted of {@link FileDescriptor#IN}, {@link FileDescriptor#OUT} and {@link #EDGE}
     * @param data what {@link #data} returns for it; any number but Long.MIN_VALUE
     * @throws LinuxException EEXIST when it is waited for already, EPERM when it is of a kind that
     *     cannot be
     */
    public void add(FileDescriptor target, int wanted, long data) throws LinuxException {
        if (data == WAKE) {
            throw new IllegalArgumentException("data " + data + " is taken");
        }
        control(ADD, target, wanted, data);
    }

    /**
     * Waits for {@code target} no more. An {@link #await} under way may still report it.
     *
     * @throws LinuxException ENOENT when it was not waited for
     */
    public void remove(FileDescriptor target) throws LinuxException {
        control(DELETE, target, 0, 0);
    }

    /** Removes a number that the caller holds, whether or not its owner has closed it. */
    void forget(int fd) {
        try {
            LibC.epollCtl(file.acquire("epoll_ctl"), DELETE, fd, MemorySegment.NULL);
            file.release();
        } catch (LinuxException e) {
            // Closed, and with it all that was waited for.
        }
    }

    private void control(int operation, FileDescriptor target, int wanted, long data)
            throws LinuxException {
        int epfd = file.acquire("epoll_ctl");
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment event = arena.allocate(EVENT_BYTES, 8);
            event.set(INT, 0, wanted);
            event.set(LONG, DATA, data);
            int fd = target.acquire("epoll_ctl");
            try {
                int result = LibC.epollCtl(epfd, operation, fd, event);
                FileDescriptor.check(result, "epoll_ctl", target.name());
            } finally {
                target.release();
            }
        } finally {
            file.release();
        }
    }

    /**
     * Waits until a file is ready, somebody calls {@link #wakeUp}, or the time is over.
     *
     * @param timeoutMillis 0 to look only, negative to wait for ever
     * @return how many files are ready: the indices of {@link #data} and {@link #events}; 0 when
     *     woken up, interrupted by a signal, or after the time
     * @throws LinuxException EBADF when closed, before or meanwhile
     */
    public int await(int timeoutMillis) throws LinuxException {
        int epfd = file.acquire("epoll_wait");
        try {
            // Held too: closed earlier than this wait ends, it would leave the set and wake nobody.
            wake.file().acquire("epoll_wait");
        } catch (LinuxException e) {
            file.release();
            throw e;
        }
        try {
            int n = LibC.epollWait(epfd, events, maxEvents, timeoutMillis);
            if (n == -Errno.EINTR) {
                n = 0;
            }
            FileDescriptor.check(n, "epoll_wait", file.name());
            if (!file.isOpen()) {
                throw new LinuxException("epoll_wait", file.name(), Errno.EBADF);
            }
            return withoutWake(n);
        } finally {
            wake.file().release();
            file.release();
        }
    }

    private int withoutWake(int n) throws LinuxException {
        for (int i = 0; i < n; i++) {
            if (data(i) == WAKE) {
                wake.drain();
                long last = EVENT_BYTES * (n - 1);
                MemorySegment.copy(events, last, events, EVENT_BYTES * i, EVENT_BYTES);
                return n - 1;
            }
        }
        return n;
    }

    /** The data of the file that the last {@link #await} reported at {@code index}. */
    public long data(int index) {
        return events.get(LONG, EVENT_BYTES * index + DATA);
    }

    /** The events of the file that the last {@link #await} reported at {@code index}. */
    public int events(int index) {
        return events.get(INT, EVENT_BYTES * index);
    }

    /** Ends the {@link #await} under way, or else the next one. */
    public void wakeUp() throws LinuxException {
        wake.signal();
    }

    /** Closes; an {@link #await} under way ends with EBADF. Again is no error. */
    @Override
    public void close() {
        file.close();
        try {
            wake.signal();
        } catch (LinuxException e) {
            // Closed before, by a close that has woken everybody up.
        }
        // Not the counter itself: that close would take the signal from who is just waiting.
        wake.file().close();
    }
}
