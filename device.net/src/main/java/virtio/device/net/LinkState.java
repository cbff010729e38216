package virtio.device.net;

import virtio.api.Registration;
import virtio.api.VirtioDevice;
import virtio.api.VirtioException;
import virtio.api.net.Duplex;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;

import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** What a card says of its link, and who wants to hear of changes. Thread-safe. */
final class LinkState {
    private static final System.Logger LOG = System.getLogger(LinkState.class.getPackageName());
    private static final int UNKNOWN_SPEED = -1;

    private final String name;
    private final List<Runnable> listeners = new CopyOnWriteArrayList<>();
    private volatile boolean up;
    private volatile int speed = UNKNOWN_SPEED;
    private volatile Duplex duplex = Duplex.UNKNOWN;

    LinkState(String name) {
        this.name = name;
    }

    boolean up() {
        return up;
    }

    int speedMegabits() {
        return speed;
    }

    Duplex duplex() {
        return duplex;
    }

    /** Reads all of it; the status word. */
    int read(VirtioDevice device, NetLimits limits) throws VirtioException {
        int status = NetConfig.S_LINK_UP;
        if (limits.has(NetFeature.STATUS)) {
            status = device.config().read16(NetConfig.STATUS);
        }
        int megabits = UNKNOWN_SPEED;
        Duplex both = Duplex.UNKNOWN;
        if (limits.has(NetFeature.SPEED_DUPLEX)) {
            // Above 0x7FFFFFFF it is unknown, and so is a duplex without a name (DRV-NET-010).
            megabits = Math.max(UNKNOWN_SPEED, device.config().read32(NetConfig.SPEED));
            both =
                    switch (device.config().read8(NetConfig.DUPLEX)) {
                        case 0 -> Duplex.HALF;
                        case 1 -> Duplex.FULL;
                        default -> Duplex.UNKNOWN;
                    };
        }
        speed = megabits;
        duplex = both;
        up = (status & NetConfig.S_LINK_UP) != 0;
        return status;
    }

    Registration listen(Runnable listener) {
        // An object of its own, so that the same listener can be added twice and taken back once.
        Runnable entry = listener::run;
        listeners.add(entry);
        return () -> listeners.remove(entry);
    }

    void tell() {
        for (Runnable listener : listeners) {
            try {
                listener.run();
            } catch (RuntimeException e) {
                LOG.log(Level.WARNING, name + ": link listener failed", e);
            }
        }
    }

    /**
     * Tells the network where the card is, when its device asks for that (5.1.6.5.4). A card that
     * cannot is none the worse for it.
     *
     * @param control null where there is none
     */
    void announce(int status, NetLimits limits, QueuePair pair, byte[] mac, ControlQueue control) {
        if ((status & NetConfig.S_ANNOUNCE) == 0
                || !limits.has(NetFeature.GUEST_ANNOUNCE)
                || control == null) {
            return;
        }
        try {
            pair.sendOwn(announcement(mac));
            control.command("ANNOUNCE_ACK", NetControl.ANNOUNCE, 0, new byte[0]);
        } catch (VirtioException | RuntimeException e) {
            LOG.log(Level.WARNING, name + ": the network is not told where it is", e);
        }
    }

    /** A reverse ARP request for one's own address: switches learn from it where it is now. */
    private static byte[] announcement(byte[] mac) {
        ByteBuffer frame = ByteBuffer.allocate(60);
        frame.putLong(0xFFFF_FFFF_FFFFL << 16 | (mac[0] & 0xFF) << 8 | mac[1] & 0xFF);
        frame.put(mac, 2, 4);
        // Ethernet type, hardware and protocol type and their lengths, operation (RFC 903).
        frame.putShort((short) 0x8035).putShort((short) 1).putShort((short) 0x0800);
        frame.put((byte) 6).put((byte) 4).putShort((short) 3);
        frame.put(mac).putInt(0).put(mac).putInt(0);
        return frame.array();
    }
}
