package virtio.backend.net;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;
import virtio.api.net.ReceiveMode;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Does what a driver commands by the control queue (virtio 5.1.6.5). */
final class Commands {
    /** What can be switched by a command. */
    static final Features GUEST_OFFLOADS =
            Features.of(
                    NetFeature.GUEST_CSUM,
                    NetFeature.GUEST_TSO4,
                    NetFeature.GUEST_TSO6,
                    NetFeature.GUEST_ECN,
                    NetFeature.GUEST_USO4,
                    NetFeature.GUEST_USO6);

    private static final int HEADER = 2;

    /** Two full filter tables. */
    private static final int MAX_DATA =
            2 * (Integer.BYTES + ReceiveFilter.MAX_ADDRESSES * NetConfig.MAC_BYTES);

    private final NetBackend backend;

    Commands(NetBackend backend) {
        this.backend = backend;
    }

    void process(DeviceQueue queue, Chain chain) throws VirtioException {
        while (queue.next(chain)) {
            long writable = chain.writableBytes();
            if (writable == 0) {
                throw new VirtioException(
                        "queue %d: command with %d device-readable bytes has no byte for its answer"
                                .formatted(queue.index(), chain.readableBytes()));
            }
            boolean done = false;
            long bytes = chain.readableBytes() - HEADER;
            if (bytes >= 0 && bytes <= MAX_DATA) {
                byte[] copy = new byte[(int) bytes];
                if (bytes > 0) {
                    chain.read(HEADER, MemorySegment.ofArray(copy), 0, bytes);
                }
                ByteBuffer data = ByteBuffer.wrap(copy).order(ByteOrder.LITTLE_ENDIAN);
                done = execute(chain.read8(0), chain.read8(1), data);
            }
            chain.fill(0, writable);
            chain.write8(writable - 1, done ? NetControl.OK : NetControl.ERR);
            queue.complete(chain, writable);
        }
    }

    private boolean execute(int commandClass, int command, ByteBuffer data) {
        return switch (commandClass) {
            case NetControl.RX -> receiveMode(command, data);
            case NetControl.MAC -> mac(command, data);
            case NetControl.VLAN -> vlan(command, data);
            case NetControl.ANNOUNCE -> {
                boolean known = command == 0 && has(NetFeature.GUEST_ANNOUNCE);
                if (known) {
                    backend.announced();
                }
                yield known;
            }
            case NetControl.MQ -> pairs(command, data);
            case NetControl.GUEST_OFFLOADS -> guestOffloads(command, data);
            default -> false;
        };
    }

    private boolean has(int feature) {
        Features features = backend.features();
        return features != null && features.has(feature);
    }

    private boolean receiveMode(int command, ByteBuffer data) {
        boolean extra = command > ReceiveMode.ALL_MULTICAST.ordinal();
        if (command >= ReceiveMode.values().length
                || !has(extra ? NetFeature.CTRL_RX_EXTRA : NetFeature.CTRL_RX)
                || data.remaining() != 1) {
            return false;
        }
        ReceiveMode mode = ReceiveMode.values()[command];
        backend.filter(backend.filter().with(mode, data.get() != 0));
        return true;
    }

    private boolean mac(int command, ByteBuffer data) {
        if (command == NetControl.MAC_ADDR_SET) {
            byte[] address = new byte[NetConfig.MAC_BYTES];
            if (!has(NetFeature.CTRL_MAC_ADDR) || data.remaining() != address.length) {
                return false;
            }
            data.get(address);
            backend.mac(address);
            return true;
        }
        if (command != NetControl.MAC_TABLE_SET || !has(NetFeature.CTRL_RX)) {
            return false;
        }
        long[] unicast = addresses(data);
        long[] multicast = unicast == null ? null : addresses(data);
        if (multicast == null || data.hasRemaining()) {
            return false;
        }
        backend.filter(backend.filter().with(unicast, multicast));
        return true;
    }

    /** A number of addresses and these; null when that is not what follows. */
    private static long[] addresses(ByteBuffer data) {
        if (data.remaining() < Integer.BYTES) {
            return null;
        }
        int count = data.getInt();
        if (count < 0
                || count > ReceiveFilter.MAX_ADDRESSES
                || data.remaining() < count * NetConfig.MAC_BYTES) {
            return null;
        }
        long[] addresses = new long[count];
        byte[] address = new byte[NetConfig.MAC_BYTES];
        for (int i = 0; i < count; i++) {
            data.get(address);
            addresses[i] = ReceiveFilter.number(address);
        }
        return addresses;
    }

    private boolean vlan(int command, ByteBuffer data) {
        if (command > NetControl.VLAN_DEL
                || !has(NetFeature.CTRL_VLAN)
                || data.remaining() != Short.BYTES) {
            return false;
        }
        int vlan = data.getShort() & 0xFFFF;
        if (vlan >= 4096) {
            return false;
        }
        backend.filter(backend.filter().withVlan(vlan, command == NetControl.VLAN_ADD));
        return true;
    }

    private boolean pairs(int command, ByteBuffer data) {
        if (command != NetControl.MQ_VQ_PAIRS_SET
                || !has(NetFeature.MQ)
                || data.remaining() != Short.BYTES) {
            return false;
        }
        int pairs = data.getShort() & 0xFFFF;
        if (pairs < 1 || pairs > backend.pairs()) {
            return false;
        }
        backend.activePairs(pairs);
        return true;
    }

    private boolean guestOffloads(int command, ByteBuffer data) {
        if (command != 0
                || !has(NetFeature.CTRL_GUEST_OFFLOADS)
                || data.remaining() != Long.BYTES) {
            return false;
        }
        Features wanted = Features.ofWords(data.getLong());
        if (!wanted.andNot(backend.features().and(GUEST_OFFLOADS)).isEmpty()) {
            return false;
        }
        backend.guestOffloads(wanted);
        return true;
    }
}
