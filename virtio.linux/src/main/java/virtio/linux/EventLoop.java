package virtio.linux;

import java.util.Arrays;
import java.util.function.IntConsumer;

/**
 * One thread that waits for many files and calls who is interested in them.
 *
 * <p>Handlers run one after the other on that thread, so none may wait for long. Watching and
 * ceasing to watch is for every thread, the handlers' own included. Waiting and calling allocate
 * nothing.
 */
public final class EventLoop implements AutoCloseable {
    private static final int MAX_EVENTS = 64;

    private final Epoll epoll;
    private final Thread thread;

    /** By slot, the low half of a watch's data; replaced, never changed. */
    private volatile Watch[] watches = {};

    private volatile boolean closed;

    /** The high half: events of a watch that is gone do not reach the next one in its slot. */
    private int generation;

    private EventLoop(Epoll epoll, String threadName) {
        this.epoll = epoll;
        this.thread = Thread.ofPlatform().name(threadName).daemon().unstarted(this::run);
    }

    /** Starts a loop on a daemon thread of that name. */
    public static EventLoop start(String threadName) throws LinuxException {
        EventLoop loop = new EventLoop(Epoll.create(MAX_EVENTS), threadName);
        loop.thread.start();
        return loop;
    }

    /**
     * Calls {@code handler} with the events whenever {@code file} is ready, until the watch is
     * closed.
     *
     * <p>Without {@link Epoll#EDGE} that goes on for as long as it is ready: the handler reads what
     * there is, or closes the watch. A handler that throws is called no more, and what it has
     * thrown goes to the thread's uncaught exception handler.
     *
     * @param events of {@link FileDescriptor#IN}, {@link FileDescriptor#OUT} and {@link
     *     Epoll#EDGE}; {@link FileDescriptor#ERR} and {@link FileDescriptor#HUP} come unasked
     * @throws LinuxException EEXIST when the file is watched already, EPERM when it is of a kind
     *     that cannot be, EBADF when the file or the loop is closed
     */
    public synchronized Watch watch(FileDescriptor file, int events, IntConsumer handler)
            throws LinuxException {
        Watch[] grown = watches;
        int slot = Arrays.asList(grown).indexOf(null);
        if (slot < 0) {
            slot = grown.length;
        }
        long data = (long) (generation++ & Integer.MAX_VALUE) << 32 | slot;
        Watch watch = new Watch(file, file.acquire("epoll_ctl"), data, handler);
        put(slot, watch);
        try {
            epoll.add(file, events, data);
        } catch (LinuxException e) {
            put(slot, null);
            file.release();
            throw e;
        }
        return watch;
    }

    private void put(int slot, Watch watch) {
        Watch[] next = Arrays.copyOf(watches, Math.max(watches.length, slot + 1));
        next[slot] = watch;
        watches = next;
    }

    private void run() {
        try {
            while (!closed) {
                int n = epoll.await(-1);
                for (int i = 0; i < n && !closed; i++) {
                    long data = epoll.data(i);
                    Watch watch = watches[(int) data];
                    if (watch != null && watch.data == data) {
                        watch.ready(epoll.events(i));
                    }
                }
            }
        } catch (LinuxException e) {
            throw new IllegalStateException(e);
        } finally {
            closeAll();
        }
    }

    private void closeAll() {
        closed = true;
        for (Watch watch : watches) {
            if (watch != null) {
                watch.close();
            }
        }
        epoll.close();
    }

    /**
     * Ends the loop and its watches; the files stay their owners'. When it returns, no handler runs
     * any more, unless it was called by one. Again is no error.
     */
    @Override
    public void close() {
        closed = true;
        try {
            epoll.wakeUp();
        } catch (LinuxException e) {
            // The loop has ended and closed it.
        }
        Linux.join(thread);
    }

    /** A file that the loop waits for. */
    public final class Watch implements AutoCloseable {
        private final FileDescriptor file;

        /** Held while watched: without its number the kernel could not be told to stop. */
        private final int fd;

        private final long data;
        private final IntConsumer handler;
        private boolean ended;

        private Watch(FileDescriptor file, int fd, long data, IntConsumer handler) {
            this.file = file;
            this.fd = fd;
            this.data = data;
            this.handler = handler;
        }

        private synchronized void ready(int events) {
            if (ended) {
                return;
            }
            try {
                handler.accept(events);
            } catch (Throwable t) {
                close();
                thread.getUncaughtExceptionHandler().uncaughtException(thread, t);
            }
        }

        /**
         * Waits for the file no more, and gives up its hold on it; the handler may be running, and
         * may be called once more. For who holds a lock that the handler wants.
         */
        public void cancel() {
            synchronized (EventLoop.this) {
                if (watches[(int) data] == this) {
                    put((int) data, null);
                    epoll.forget(fd);
                    file.release();
                }
            }
        }

        /**
         * Waits for the file no more. When it returns, the handler does not run and will not,
         * unless it was called by the handler: so the caller holds no lock that the handler wants.
         * Again is no error.
         */
        @Override
        public void close() {
            cancel();
            synchronized (this) {
                ended = true;
            }
        }
    }
}
