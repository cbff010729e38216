package virtio.device.net;

import virtio.api.VirtioException;
import virtio.api.net.HashConfig;
import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * The command that sets what is hashed: with RSS {@code struct virtio_net_rss_config}
 * (5.1.6.5.7.1), otherwise {@code struct virtio_net_hash_config} (5.1.6.5.6.4), which has reserved
 * bytes in place of everything about queues.
 *
 * <pre>
 * 0       4          6              8                 8 + 2n        10 + 2n      11 + 2n
 * | types | n - 1    | unclassified | table[n] ...    | max_tx_vq   | key length | key ...
 * | types | reserved                                  8             | key length | key ...
 * </pre>
 */
final class HashCommand {
    private static final int RESERVED = 8;

    private HashCommand() {}

    /** Refuses what the device does not take (DRV-NET-081 to 084), naming value and limit. */
    static void check(HashConfig config, NetLimits limits) {
        NetLimits.Hashing can = limits.hashing();
        Set<HashType> excess = EnumSet.noneOf(HashType.class);
        excess.addAll(config.types());
        excess.removeAll(can.types());
        if (!excess.isEmpty()) {
            throw new IllegalArgumentException(
                    "hash types %s, the device has %s".formatted(excess, can.types()));
        }
        int key = config.key().length;
        if (key > can.maxKeyBytes() || key == 0 && !config.types().isEmpty()) {
            throw new IllegalArgumentException(
                    "hash key of %d bytes, limits are 1 and %d".formatted(key, can.maxKeyBytes()));
        }
        List<Integer> table = config.table();
        if (table.isEmpty()) {
            return;
        }
        if (table.size() > can.maxTableLength() || Integer.bitCount(table.size()) != 1) {
            throw new IllegalArgumentException(
                    "table of %d entries, the limit is %d and it is a power of two"
                            .formatted(table.size(), can.maxTableLength()));
        }
        IntStream.concat(
                        table.stream().mapToInt(Integer::intValue),
                        IntStream.of(config.unclassified()))
                .filter(pair -> pair < 0 || pair >= limits.pairs())
                .findFirst()
                .ifPresent(
                        pair -> {
                            throw new IllegalArgumentException(
                                    "queue pair %d in a table, limits are 0 and %d"
                                            .formatted(pair, limits.pairs() - 1));
                        });
    }

    /** Sends what was checked. */
    static void send(ControlQueue control, NetLimits limits, HashConfig config)
            throws VirtioException {
        boolean rss = limits.has(NetFeature.RSS);
        control.command(
                "hashes of %s".formatted(config),
                NetControl.MQ,
                rss ? NetControl.MQ_RSS_CONFIG : NetControl.MQ_HASH_CONFIG,
                rss ? rss(config, limits) : hash(config));
    }

    private static byte[] rss(HashConfig config, NetLimits limits) {
        int pairs = limits.pairs();
        List<Integer> table = config.table();
        if (table.isEmpty()) {
            table = IntStream.range(0, NetConfig.TABLE_LENGTH).map(i -> i % pairs).boxed().toList();
        }
        byte[] key = config.key();
        ByteBuffer data = buffer(RESERVED + Short.BYTES * (table.size() + 1) + 1 + key.length);
        data.putInt(HashType.mask(config.types()));
        data.putShort((short) (table.size() - 1)).putShort((short) config.unclassified());
        // A pair's number is its receive queue's without the lowest bit, as the command wants it.
        table.forEach(pair -> data.putShort(pair.shortValue()));
        data.putShort((short) pairs);
        return data.put((byte) key.length).put(key).array();
    }

    private static byte[] hash(HashConfig config) {
        byte[] key = config.key();
        ByteBuffer data = buffer(Integer.BYTES + RESERVED + 1 + key.length);
        data.putInt(HashType.mask(config.types())).putLong(0);
        return data.put((byte) key.length).put(key).array();
    }

    private static ByteBuffer buffer(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }
}
