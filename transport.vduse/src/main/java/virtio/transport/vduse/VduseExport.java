package virtio.transport.vduse;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.block.BlockFeature;
import virtio.api.net.NetFeature;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.linux.Errno;
import virtio.linux.Linux;
import virtio.linux.LinuxException;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A VDUSE device: made or found, put on the bus, and served by a {@link VduseSession}. */
final class VduseExport implements Export {
    private static final Logger LOG = System.getLogger(VduseExport.class.getPackageName());

    /** How long a close waits for a user of vhost-vdpa to let go of the device. */
    private static final int REMOVAL_MILLIS = 3000;

    /** Not carried: VDUSE has no word for one queue's reset, nor for data with a kick. */
    private static final Features NOT_CARRIED =
            Features.of(
                    Feature.SR_IOV,
                    Feature.NOTIFICATION_DATA,
                    Feature.NOTIF_CONFIG_DATA,
                    Feature.RING_RESET,
                    Feature.ADMIN_VQ);

    /** CONFIG_WCE: the kernel takes no disk whose configuration can be written. */
    private static final Features BLK_CONFIG_WCE = Features.of(BlockFeature.CONFIG_WCE);

    /** CTRL_VQ and what needs it: the kernel takes no NIC with a control queue. */
    private static final Features NET_CONTROL =
            Features.of(
                    NetFeature.CTRL_GUEST_OFFLOADS,
                    NetFeature.CTRL_VQ,
                    NetFeature.CTRL_RX,
                    NetFeature.CTRL_VLAN,
                    NetFeature.CTRL_RX_EXTRA,
                    NetFeature.GUEST_ANNOUNCE,
                    NetFeature.MQ,
                    NetFeature.CTRL_MAC_ADDR,
                    NetFeature.HASH_TUNNEL,
                    NetFeature.VQ_NOTF_COAL,
                    NetFeature.NOTF_COAL,
                    NetFeature.HASH_REPORT,
                    NetFeature.RSS);

    private final String address;
    private final String name;
    private final boolean keep;
    private final Vduse kernel;
    private final VduseSession session;
    private final Consumer<VduseExport> onClose;
    private final CountDownLatch left = new CountDownLatch(1);
    private boolean closed;

    private VduseExport(
            String address,
            String name,
            boolean keep,
            Vduse kernel,
            VduseSession session,
            Consumer<VduseExport> onClose) {
        this.address = address;
        this.name = name;
        this.keep = keep;
        this.kernel = kernel;
        this.session = session;
        this.onClose = onClose;
    }

    /**
     * Makes the device and puts it on the bus, or goes on with the one that is there.
     *
     * @param address whole, for people
     * @param offered of {@link #carried}
     * @param onClose told when it begins to close
     * @throws VirtioException in one sentence that says what to do
     */
    static VduseExport open(
            String address,
            String name,
            boolean keep,
            Features offered,
            Vduse kernel,
            Path stateFolder,
            ExportedDevice device,
            Consumer<VduseExport> onClose)
            throws VirtioException {
        if (kernel.isAnother(name)) {
            throw new VirtioException(address + ": " + another(name));
        }
        boolean fresh = !kernel.exists(name);
        VduseSession session = null;
        try {
            if (fresh) {
                kernel.create(
                        name,
                        device.deviceType(),
                        offered.word(0),
                        device.queueCount(),
                        VduseSession.config(device));
            }
            VduseDevice opened = kernel.open(name, device.queueCount());
            session = new VduseSession(address, name, device, opened);
            session.prepare(stateFolder, fresh);
            VduseExport export = new VduseExport(address, name, keep, kernel, session, onClose);
            session.start(export);
            export.addToBus(fresh);
            return export;
        } catch (IOException | RuntimeException e) {
            if (session != null) {
                session.end();
            }
            // Somebody else's is neither closed nor destroyed: that fails with EBUSY.
            if (fresh) {
                destroy(kernel, address, name, session);
            } else if (isGivenUp(e)) {
                replace(address, name, kernel);
                return open(address, name, keep, offered, kernel, stateFolder, device, onClose);
            }
            throw new VirtioException(address + ": " + unavailable(e), e);
        }
    }

    /** What a device that can be opened answers once the kernel has given it up. */
    private static boolean isGivenUp(Exception e) {
        return e instanceof LinuxException linux && linux.errno() == Errno.EPERM;
    }

    /** Removes a device that the kernel has given up: nothing brings it back. */
    private static void replace(String address, String name, Vduse kernel) throws VirtioException {
        try {
            kernel.destroy(name);
        } catch (IOException e) {
            throw new VirtioException(
                    ("%s: the kernel has given the device of that name up, because its server has"
                                    + " not answered in time: as root, vdpa dev del %s")
                            .formatted(address, name),
                    e);
        }
    }

    /** What of a device's offer the kernel and the wire carry. */
    static Features carried(ExportedDevice device) {
        Features carried = device.offered().andNot(NOT_CARRIED).with(Feature.ACCESS_PLATFORM);
        return switch (device.deviceType()) {
            case DeviceType.BLOCK -> carried.andNot(BLK_CONFIG_WCE);
            case DeviceType.NETWORK -> carried.andNot(NET_CONTROL);
            default -> carried;
        };
    }

    /** Why a device cannot be offered, and what to do. */
    private static String unavailable(Exception e) {
        if (e instanceof LinuxException linux) {
            switch (linux.errno()) {
                case Errno.EBUSY:
                case Errno.EEXIST:
                    return "the address is taken, somebody else serves the device of that name: "
                            + e.getMessage();
                case Errno.EACCES:
                case Errno.EPERM:
                    return "this user may not make VDUSE devices, root may: " + e.getMessage();
                case Errno.EINVAL:
                    return "the kernel takes disks and NICs only, with up to 4096 bytes of"
                            + " configuration: "
                            + e.getMessage();
                default:
                    break;
            }
        }
        return e.getMessage() == null ? e.toString() : e.getMessage();
    }

    private static String another(String name) {
        return "another vDPA device has that name on the bus: choose another name, or as root,"
                + " vdpa dev del "
                + name;
    }

    /** Where this user may not, somebody else can do it later. */
    private void addToBus(boolean fresh) throws IOException {
        try {
            kernel.addToBus(name);
        } catch (LinuxException e) {
            if (e.errno() == Errno.EPERM || e.errno() == Errno.EACCES) {
                LOG.log(
                        Level.WARNING,
                        "{0} is served, but on no bus yet, which takes CAP_NET_ADMIN: as root,"
                                + " vdpa dev add name {1} mgmtdev vduse",
                        address,
                        name);
            } else if (fresh && e.errno() == Errno.EEXIST) {
                throw new VirtioException(another(name), e);
            } else if (e.errno() != Errno.EEXIST) {
                throw e;
            }
        }
    }

    @Override
    public String driver() {
        int status = session.status();
        if (session.isGivenUp()) {
            return "given up by the kernel, which was not answered in time";
        }
        if (status == 0) {
            return null;
        }
        String driver = kernel.driver(name);
        return "driven by %s, %s"
                .formatted(driver == null ? "the kernel" : driver, DeviceStatus.name(status));
    }

    @Override
    public void interrupt(int queue) {
        session.interrupt(queue);
    }

    @Override
    public void configChanged() {
        session.configChanged();
    }

    @Override
    public void schedule(int queue) {
        session.schedule(queue);
    }

    /**
     * {@inheritDoc}
     *
     * <p>VDUSE has no word for it: the driver's requests wait until it resets the device.
     */
    @Override
    public void queueBroken(int queue, String reason) {
        LOG.log(Level.WARNING, "{0}: broken, until its driver resets it: {1}", address, reason);
    }

    @Override
    public synchronized void close() {
        if (closed) {
            return;
        }
        closed = true;
        onClose.accept(this);
        if (keep) {
            session.end();
            return;
        }
        CountDownLatch off = new CountDownLatch(1);
        Thread removal =
                Thread.ofPlatform().name("virtio-remove-" + name).daemon().start(() -> remove(off));
        // Served meanwhile: its driver says good-bye to it.
        if (!await(off, REMOVAL_MILLIS)) {
            LOG.log(
                    Level.WARNING,
                    "{0}: a user of vhost-vdpa has it open, it is removed when that one lets go",
                    address);
        }
        session.end();
        left.countDown();
        if (off.getCount() == 0) {
            Linux.join(removal);
        }
    }

    private void remove(CountDownLatch off) {
        try {
            if (!kernel.isAnother(name)) {
                kernel.removeFromBus(name);
            }
        } catch (IOException e) {
            if (!(e instanceof LinuxException linux) || linux.errno() != Errno.ENODEV) {
                LOG.log(
                        Level.WARNING,
                        "{0}: it stays on the bus, as root, vdpa dev del {1}: {2}",
                        address,
                        name,
                        e.getMessage());
            }
        } finally {
            off.countDown();
        }
        await(left, Long.MAX_VALUE);
        destroy(kernel, address, name, session);
    }

    private static void destroy(Vduse kernel, String address, String name, VduseSession session) {
        try {
            kernel.destroy(name);
            if (session != null) {
                session.forget();
            }
        } catch (IOException e) {
            LOG.log(Level.WARNING, "{0}: its VDUSE device stays: {1}", address, e.getMessage());
        }
    }

    private static boolean await(CountDownLatch latch, long millis) {
        boolean interrupted = false;
        try {
            while (true) {
                try {
                    return latch.await(millis, TimeUnit.MILLISECONDS);
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    @Override
    public String toString() {
        return address;
    }
}
