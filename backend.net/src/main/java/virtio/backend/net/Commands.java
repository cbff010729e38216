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

    /** Of {@code struct virtio_net_rss_config} and its like. */
    private static final int HASH_RESERVED = 8;

    private static final int DELAY_BYTES = 2 * Integer.BYTES;

    private final NetBackend backend;
    private final Notifications notifications;

    Commands(NetBackend backend, Notifications notifications) {
        this.backend = backend;
        this.notifications = notifications;
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
            chain.fill(0, writable);
            long bytes = chain.readableBytes() - HEADER;
            if (bytes >= 0 && bytes <= MAX_DATA) {
                byte[] copy = new byte[(int) bytes];
                if (bytes > 0) {
                    chain.read(HEADER, MemorySegment.ofArray(copy), 0, bytes);
                }
                ByteBuffer data = ByteBuffer.wrap(copy).order(ByteOrder.LITTLE_ENDIAN);
                done = execute(chain.read8(0), chain.read8(1), data, chain);
            }
            chain.write8(writable - 1, done ? NetControl.OK : NetControl.ERR);
            queue.complete(chain, writable);
        }
    }

    private boolean execute(int commandClass, int command, ByteBuffer data, Chain chain) {
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
            case NetControl.MQ ->
                    switch (command) {
                        case NetControl.MQ_VQ_PAIRS_SET -> pairs(data);
                        case NetControl.MQ_RSS_CONFIG -> rss(data);
                        case NetControl.MQ_HASH_CONFIG -> hash(data);
                        default -> false;
                    };
            case NetControl.NOTF_COAL -> delay(command, data, chain);
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

    private boolean pairs(ByteBuffer data) {
        if (!has(NetFeature.MQ) || data.remaining() != Short.BYTES) {
            return false;
        }
        int pairs = data.getShort() & 0xFFFF;
        if (pairs < 1 || pairs > backend.pairs()) {
            return false;
        }
        backend.activePairs(pairs);
        return true;
    }

    /** {@code struct virtio_net_rss_config} (5.1.6.5.7.1). */
    private boolean rss(ByteBuffer data) {
        if (!has(NetFeature.RSS) || data.remaining() < Integer.BYTES + 2 * Short.BYTES) {
            return false;
        }
        int types = data.getInt();
        int length = (data.getShort() & 0xFFFF) + 1;
        int unclassified = data.getShort() & 0xFFFF;
        if (length > ReceiveHash.MAX_TABLE
                || Integer.bitCount(length) != 1
                || data.remaining() < Short.BYTES * (length + 1)
                || unclassified >= backend.pairs()) {
            return false;
        }
        int[] table = new int[length];
        for (int i = 0; i < length; i++) {
            table[i] = data.getShort() & 0xFFFF;
            if (table[i] >= backend.pairs()) {
                return false;
            }
        }
        int maxTransmit = data.getShort() & 0xFFFF;
        return maxTransmit >= 1
                && maxTransmit <= backend.pairs()
                && hash(types, data, table, unclassified);
    }

    /** {@code struct virtio_net_hash_config} (5.1.6.5.6.4). */
    private boolean hash(ByteBuffer data) {
        if (!has(NetFeature.HASH_REPORT) || data.remaining() < Integer.BYTES + HASH_RESERVED) {
            return false;
        }
        int types = data.getInt();
        data.getLong();
        return hash(types, data, new int[0], 0);
    }

    /** With the key as what remains of the data. */
    private boolean hash(int types, ByteBuffer data, int[] table, int unclassified) {
        if (!data.hasRemaining() || (types & ~ReceiveHash.TYPES) != 0) {
            return false;
        }
        byte[] key = new byte[data.get() & 0xFF];
        // Some versions of Linux send a byte more than there is.
        if (key.length > data.remaining()
                || key.length > ReceiveHash.MAX_KEY
                || key.length == 0 && types != 0) {
            return false;
        }
        data.get(key);
        backend.hashing(new ReceiveHash(types, key, table, unclassified));
        return true;
    }

    private boolean delay(int command, ByteBuffer data, Chain chain) {
        boolean one = command >= NetControl.NOTF_COAL_VQ_SET;
        boolean get = command == NetControl.NOTF_COAL_VQ_GET;
        int bytes = (one ? Integer.BYTES : 0) + (get ? 0 : DELAY_BYTES);
        if (command > NetControl.NOTF_COAL_VQ_GET
                || !has(one ? NetFeature.VQ_NOTF_COAL : NetFeature.NOTF_COAL)
                || data.remaining() != bytes) {
            return false;
        }
        // The 16 reserved bits behind the number mean nothing (DEV-NET-096).
        int index = one ? data.getInt() & 0xFFFF : 0;
        if (get) {
            return answer(notifications.get(index), chain);
        }
        Notifications.Delay delay = new Notifications.Delay(data.getInt(), data.getInt());
        if (one) {
            return notifications.set(index, delay);
        }
        notifications.set(command == NetControl.NOTF_COAL_TX_SET, delay);
        return true;
    }

    private static boolean answer(Notifications.Delay delay, Chain chain) {
        if (delay == null || chain.writableBytes() != DELAY_BYTES + 1) {
            return false;
        }
        byte[] reply = new byte[DELAY_BYTES];
        ByteBuffer.wrap(reply)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putInt(delay.maxPackets())
                .putInt(delay.maxMicros());
        chain.write(0, MemorySegment.ofArray(reply), 0, DELAY_BYTES);
        return true;
    }

    private boolean guestOffloads(int command, ByteBuffer data) {
        if (command != 0
                || !has(NetFeature.CTRL_GUEST_OFFLOADS)
                || data.remaining() != Long.BYTES) {
            return false;
        }
        // Linux counts the exact header's length among them, which large packets have anyway.
        Features known = GUEST_OFFLOADS.with(NetFeature.GUEST_HDRLEN);
        Features wanted = Features.ofWords(data.getLong());
        if (!wanted.andNot(backend.features().and(known)).isEmpty()) {
            return false;
        }
        backend.guestOffloads(wanted);
        return true;
    }
}
