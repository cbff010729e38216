package virtio.transport.vhostuser;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.linux.Errno;
import virtio.linux.Linux;
import virtio.linux.LinuxException;
import virtio.linux.UnixListener;
import virtio.linux.UnixSocket;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;

/** A device on a socket: one front-end after the other, each a {@link BackEnd} of its own. */
final class VhostUserExport implements Export {
    private static final Logger LOG = System.getLogger(VhostUserExport.class.getPackageName());

    private static final long RETRY_NANOS = 100_000_000;

    private final String address;
    private final Features without;
    private final ExportedDevice device;
    private final Consumer<VhostUserExport> onClose;
    private final UnixListener listener;
    private final Thread thread;
    private volatile BackEnd served;
    private volatile boolean closed;

    /**
     * Makes the socket.
     *
     * @param without features that front-ends are not offered
     * @param onClose told when it begins to close
     */
    VhostUserExport(
            String address,
            Path path,
            Features without,
            ExportedDevice device,
            Consumer<VhostUserExport> onClose)
            throws VirtioException {
        this.address = address;
        this.without = without;
        this.device = device;
        this.onClose = onClose;
        try {
            listener = UnixListener.listen(path);
        } catch (IOException e) {
            throw new VirtioException(address + ": " + unavailable(e), e);
        }
        thread = Thread.ofPlatform().name("virtio-" + address).daemon().start(this::run);
    }

    /** Why a socket cannot be made, and what to do. */
    private static String unavailable(IOException e) {
        if (e instanceof LinuxException linux) {
            switch (linux.errno()) {
                case Errno.EADDRINUSE:
                    return "the address is taken: " + e.getMessage();
                case Errno.ENOENT:
                case Errno.ENOTDIR:
                    return "there is no such folder to make a socket in";
                case Errno.EACCES:
                case Errno.EPERM:
                case Errno.EROFS:
                    return "this user may make no socket there: " + Errno.describe(linux.errno());
                default:
                    break;
            }
        }
        return e.getMessage();
    }

    private void run() {
        while (!closed) {
            try (UnixSocket socket = listener.accept(-1);
                    BackEnd backEnd = new BackEnd(address, without, device, socket, this)) {
                served = backEnd;
                if (closed) {
                    return;
                }
                backEnd.serve();
            } catch (IOException e) {
                if (!closed) {
                    LOG.log(Level.ERROR, "{0}: {1}", address, e.getMessage());
                    // As long as, say, descriptors are lacking the next one fails as well.
                    LockSupport.parkNanos(RETRY_NANOS);
                }
            } catch (RuntimeException | Error e) {
                // Whatever one front-end has brought about, the next one is served.
                LOG.log(Level.ERROR, address + ": the front-end is dropped", e);
            } finally {
                served = null;
            }
        }
    }

    @Override
    public String driver() {
        return served == null ? null : "driven by a front-end on " + address;
    }

    @Override
    public void interrupt(int queue) {
        BackEnd now = served;
        if (now != null) {
            now.ring(queue).interrupt();
        }
    }

    @Override
    public void configChanged() {
        BackEnd now = served;
        if (now != null) {
            now.configChanged();
        }
    }

    @Override
    public void schedule(int queue) {
        BackEnd now = served;
        if (now != null) {
            now.ring(queue).schedule();
        }
    }

    @Override
    public void queueBroken(int queue, String reason) {
        BackEnd now = served;
        if (now != null) {
            now.queueBroken(queue, reason);
        }
    }

    @Override
    public void close() {
        closed = true;
        onClose.accept(this);
        listener.close();
        BackEnd now = served;
        if (now != null) {
            now.hangUp();
        }
        Linux.join(thread);
    }

    @Override
    public String toString() {
        return address;
    }
}
