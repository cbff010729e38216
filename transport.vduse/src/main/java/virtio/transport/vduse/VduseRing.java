package virtio.transport.vduse;

import virtio.api.VirtioException;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;
import virtio.linux.Epoll;
import virtio.linux.Errno;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.Linux;
import virtio.linux.LinuxException;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.MemorySegment;

/**
 * A queue of a VDUSE device and, while it runs, the thread that serves it.
 *
 * <p>Controlled by the session's thread; {@link #interrupt} and {@link #schedule} may be called by
 * any.
 */
final class VduseRing {
    private static final Logger LOG = System.getLogger(VduseRing.class.getPackageName());

    /** What the epoll of a thread says of the driver's notifications. */
    private static final long KICKED = 1;

    /** How long until an interrupt is tried again that the kernel does not take yet. */
    private static final int RETRY_MILLIS = 1;

    private final int index;
    private final ExportedDevice device;
    private final VduseDevice kernel;
    private final String name;
    private volatile Serving serving;

    VduseRing(int index, ExportedDevice device, VduseDevice kernel, String address) {
        this.index = index;
        this.device = device;
        this.kernel = kernel;
        this.name = address + " queue " + index;
    }

    boolean isRunning() {
        return serving != null;
    }

    /**
     * Starts serving.
     *
     * @param nextAvailable the available index to go on from
     * @param inflight where the queue keeps what is in flight
     * @throws VirtioException naming value and limit
     */
    void start(
            VduseDevice.QueueInfo info,
            int nextAvailable,
            DriverMemory memory,
            MemorySegment inflight,
            Export export)
            throws VirtioException {
        QueueLayout layout =
                new QueueLayout(
                        info.size(),
                        info.descriptorArea(),
                        info.driverArea(),
                        info.deviceArea(),
                        nextAvailable,
                        inflight);
        Serving started;
        try {
            started = new Serving();
        } catch (LinuxException e) {
            throw new VirtioException("queue %d: %s".formatted(index, e.getMessage()), e);
        }
        try {
            device.startQueue(index, layout, memory, export);
        } catch (VirtioException | RuntimeException e) {
            started.release();
            throw e;
        } catch (InternalError e) {
            // How the JVM says that the file behind it is shorter than it was.
            started.release();
            throw new VirtioException(
                    "queue %d: its driver has cut off the memory of the ring".formatted(index), e);
        }
        serving = started;
        started.thread.start();
    }

    /**
     * Stops serving; what was taken is completed.
     *
     * @return where to go on from; 0 when it was not running
     * @throws IllegalStateException when the device does not let go of the queue: its memory must
     *     stay
     */
    int stop() {
        Serving running = serving;
        if (running == null) {
            return 0;
        }
        // First: the device may need the thread to complete what it has taken.
        int nextAvailable = device.stopQueue(index);
        serving = null;
        running.end();
        return nextAvailable;
    }

    /** Used buffer notification, while it runs; allocates nothing. */
    void interrupt() {
        Serving running = serving;
        if (running != null) {
            running.interrupt();
        }
    }

    /** Asks the thread to serve the queue. */
    void schedule() {
        Serving running = serving;
        if (running != null) {
            running.wakeUp();
        }
    }

    /** The thread that serves a running queue. */
    private final class Serving {
        private final EventFd kick = EventFd.create();
        private final Epoll epoll;
        private final Thread thread;
        private volatile boolean ending;

        /** An interrupt is due that the kernel has not taken. */
        private volatile boolean due;

        private Serving() throws LinuxException {
            Epoll made = null;
            try {
                made = Epoll.create(2);
                made.add(kick.file(), FileDescriptor.IN, KICKED);
                kernel.kick(index, kick);
            } catch (LinuxException e) {
                if (made != null) {
                    made.close();
                }
                kick.close();
                throw e;
            }
            epoll = made;
            thread = Thread.ofPlatform().name("virtio-" + name).daemon().unstarted(this::run);
        }

        private void run() {
            try {
                while (!ending) {
                    // Before the first wait too: what is there may have been there before.
                    device.queueNotified(index);
                    if (epoll.await(due ? RETRY_MILLIS : -1) > 0) {
                        kick.drain();
                    }
                    if (due) {
                        due = false;
                        interrupt();
                    }
                }
            } catch (LinuxException e) {
                LOG.log(Level.ERROR, "{0}: served no more: {1}", name, e.getMessage());
            } catch (RuntimeException | Error e) {
                // An InternalError is how the JVM says that a driver has cut off its file.
                LOG.log(Level.ERROR, name + ": served no more", e);
            }
        }

        private void interrupt() {
            try {
                kernel.interrupt(index);
            } catch (LinuxException e) {
                // The kernel has the answer to DRIVER_OK and has not acted on it yet.
                if (e.errno() == Errno.EINVAL && !ending) {
                    due = true;
                    if (Thread.currentThread() != thread) {
                        wakeUp();
                    }
                }
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
            release();
        }

        private void release() {
            epoll.close();
            kick.close();
        }
    }
}
