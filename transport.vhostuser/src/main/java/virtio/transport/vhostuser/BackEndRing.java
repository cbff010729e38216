package virtio.transport.vhostuser;

import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;
import virtio.linux.Epoll;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.Linux;
import virtio.linux.LinuxException;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.MemorySegment;

/**
 * A ring at the back-end: what the front-end has said about it and, while it runs, the thread that
 * serves it.
 *
 * <p>Controlled by the session's thread; {@link #interrupt}, {@link #fail}, {@link #schedule} and
 * {@link #deafen} may be called by any.
 */
final class BackEndRing {
    private static final Logger LOG = System.getLogger(BackEndRing.class.getPackageName());

    /** What {@link #epoll} says of the front-end's notifications. */
    private static final long KICKED = 1;

    final int index;

    /** Descriptors; 0 while the front-end has not said. */
    int size;

    /** User addresses, once the front-end has said them. */
    boolean addressed;

    long descriptorArea;
    long driverArea;
    long deviceArea;

    /**
     * What to go on from: the available index; on a packed ring with its wrap counter, and the used
     * one above them.
     */
    int base;

    boolean enabled;

    /** A notification has come, which is what starts a ring. */
    boolean kicked;

    /** The session waits for that notification. */
    boolean watched;

    /** The front-end notifies by nothing: the ring is looked at again and again. */
    boolean polled;

    /** The front-end's notifications. */
    EventFd kick;

    private final ExportedDevice device;
    private final String name;
    private volatile EventFd call;
    private volatile EventFd err;
    private volatile Serving serving;

    BackEndRing(int index, ExportedDevice device, String address) {
        this.index = index;
        this.device = device;
        this.name = address + " queue " + index;
    }

    /** Whether all is said that a ring needs to be started. */
    boolean isConfigured() {
        return size > 0 && addressed && (kick != null || polled);
    }

    boolean isRunning() {
        return serving != null;
    }

    /** Starts serving from {@link #base}; an error naming value and limit. */
    void start(MemoryTable memory, boolean packed, MemorySegment inflight, Export export)
            throws VirtioException {
        if (packed && base >>> 16 == 0) {
            // Some front-ends say only where available stands: a drained ring's used stands there.
            base |= base << 16;
        }
        MemoryTable.View view = new MemoryTable.View(memory);
        QueueLayout layout =
                new QueueLayout(
                        size,
                        memory.guest(descriptorArea),
                        memory.guest(driverArea),
                        memory.guest(deviceArea),
                        base,
                        inflight);
        Serving started;
        try {
            started = new Serving(view);
        } catch (LinuxException e) {
            throw new VirtioException(e.getMessage(), e);
        }
        try {
            device.startQueue(index, layout, view, export);
        } catch (VirtioException | RuntimeException e) {
            started.epoll.close();
            throw e;
        } catch (InternalError e) {
            // How the JVM says that the file behind it is shorter than it was.
            started.epoll.close();
            throw new VirtioException("its front-end has cut off the memory of the ring", e);
        }
        serving = started;
        started.thread.start();
    }

    /** The front-end has shared more. */
    void grow(MemoryTable memory) {
        Serving running = serving;
        if (running != null) {
            running.view.grow(memory);
        }
    }

    /**
     * Stops serving and remembers in {@link #base} where; what was taken is completed.
     *
     * @throws IllegalStateException when the device does not let go of the queue: its memory must
     *     stay
     */
    void stop() {
        Serving running = serving;
        if (running != null) {
            // First: the device may need the thread to complete what it has taken.
            base = device.stopQueue(index);
            serving = null;
            running.end();
        }
    }

    void kick(EventFd counter) {
        close(kick);
        kick = counter;
    }

    synchronized void call(EventFd counter) {
        EventFd before = call;
        call = counter;
        close(before);
    }

    synchronized void err(EventFd counter) {
        EventFd before = err;
        err = counter;
        close(before);
    }

    /** Closes all counters. */
    void closeCounters() {
        kick(null);
        call(null);
        err(null);
    }

    /** Ends what is held up by a front-end that fills its counters instead of reading them. */
    void deafen() {
        call(null);
        err(null);
    }

    private static void close(EventFd counter) {
        if (counter != null) {
            counter.close();
        }
    }

    /** Used buffer notification, while it runs; allocates nothing. */
    void interrupt() {
        if (serving != null) {
            signal(call);
        }
    }

    /** Tells the front-end that the ring is broken, unless its counter is full. */
    void fail() {
        EventFd to = err;
        try {
            // Who fills a counter that blocks must not hold up the session.
            if (to != null && to.file().poll(FileDescriptor.OUT, 0) == FileDescriptor.OUT) {
                signal(to);
            }
        } catch (LinuxException e) {
            // Replaced or closed meanwhile: who wants to know listens elsewhere.
        }
    }

    private static void signal(EventFd counter) {
        if (counter != null) {
            try {
                counter.signal();
            } catch (LinuxException e) {
                // Replaced or closed meanwhile: who wants to know listens elsewhere.
            }
        }
    }

    /** Asks the thread to serve the queue. */
    void schedule() {
        Serving running = serving;
        if (running != null) {
            running.wakeUp();
        }
    }

    /** The thread that serves a running ring. */
    private final class Serving {
        private final MemoryTable.View view;
        private final EventFd counter = kick;
        private final Epoll epoll;
        private final Thread thread;
        private volatile boolean ending;

        private Serving(MemoryTable.View view) throws LinuxException {
            this.view = view;
            epoll = Epoll.create(2);
            thread = Thread.ofPlatform().name("virtio-" + name).daemon().unstarted(this::run);
            if (counter != null) {
                try {
                    epoll.add(counter.file(), FileDescriptor.IN, KICKED);
                } catch (LinuxException e) {
                    epoll.close();
                    throw e;
                }
            }
        }

        private void run() {
            try {
                while (!ending) {
                    // Before the first wait too: what is there may have been there before.
                    device.queueNotified(index);
                    if (counter == null) {
                        Thread.yield();
                    } else if (epoll.await(-1) > 0) {
                        counter.drain();
                    }
                }
            } catch (LinuxException e) {
                LOG.log(Level.ERROR, "{0}: served no more: {1}", name, e.getMessage());
            } catch (RuntimeException | Error e) {
                // An InternalError is how the JVM says that a front-end has cut off its file.
                LOG.log(Level.ERROR, name + ": served no more", e);
                fail();
            }
        }

        private void wakeUp() {
            try {
                epoll.wakeUp();
            } catch (LinuxException e) {
                // It has ended.
            }
        }

        private void end() {
            ending = true;
            wakeUp();
            Linux.join(thread);
            epoll.close();
        }
    }
}
