package virtio.device.net;

import virtio.api.ConfigSpace;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;

import java.util.Arrays;
import java.util.HexFormat;
import java.util.Set;

/**
 * What a device says about itself (virtio 5.1.4), checked.
 *
 * @param features what was negotiated
 * @param mac hardware address; null when it has none
 * @param mtu most bytes of a frame's payload
 * @param pairs queue pairs to use
 * @param maxPairs queue pairs that it has, which says where the control queue is
 * @param hashing what it hashes
 */
record NetLimits(Features features, byte[] mac, int mtu, int pairs, int maxPairs, Hashing hashing) {
    /**
     * What the device hashes (5.1.4).
     *
     * @param types nothing where it does not
     * @param maxKeyBytes most bytes of a key
     * @param maxTableLength most queues in a table; 0 without RSS
     */
    record Hashing(Set<HashType> types, int maxKeyBytes, int maxTableLength) {
        static final Hashing NONE = new Hashing(Set.of(), 0, 0);

        private static Hashing read(Features features, ConfigSpace config) throws VirtioException {
            boolean rss = features.has(NetFeature.RSS);
            if (!rss && !features.has(NetFeature.HASH_REPORT)) {
                return NONE;
            }
            int key = config.read8(NetConfig.RSS_MAX_KEY_SIZE);
            if (key < NetConfig.HASH_KEY_BYTES) {
                throw new VirtioException(
                        "rss_max_key_size of %d bytes, the least is %d"
                                .formatted(key, NetConfig.HASH_KEY_BYTES));
            }
            int table = rss ? config.read16(NetConfig.RSS_MAX_INDIRECTION_TABLE_LENGTH) : 0;
            if (rss && table < NetConfig.TABLE_LENGTH) {
                throw new VirtioException(
                        "rss_max_indirection_table_length of %d, the least is %d"
                                .formatted(table, NetConfig.TABLE_LENGTH));
            }
            int types = config.read32(NetConfig.SUPPORTED_HASH_TYPES);
            return new Hashing(HashType.ofMask(types), key, table);
        }
    }

    /** Features that this driver makes use of. */
    private static final Features WANTED =
            Features.of(
                    NetFeature.CSUM,
                    NetFeature.GUEST_CSUM,
                    NetFeature.CTRL_GUEST_OFFLOADS,
                    NetFeature.MTU,
                    NetFeature.MAC,
                    NetFeature.GUEST_TSO4,
                    NetFeature.GUEST_TSO6,
                    NetFeature.GUEST_ECN,
                    NetFeature.GUEST_USO4,
                    NetFeature.GUEST_USO6,
                    NetFeature.HOST_TSO4,
                    NetFeature.HOST_TSO6,
                    NetFeature.HOST_ECN,
                    NetFeature.HOST_USO,
                    NetFeature.MRG_RXBUF,
                    NetFeature.STATUS,
                    NetFeature.CTRL_VQ,
                    NetFeature.CTRL_RX,
                    NetFeature.CTRL_VLAN,
                    NetFeature.CTRL_RX_EXTRA,
                    NetFeature.GUEST_ANNOUNCE,
                    NetFeature.MQ,
                    NetFeature.CTRL_MAC_ADDR,
                    NetFeature.VQ_NOTF_COAL,
                    NetFeature.NOTF_COAL,
                    NetFeature.HASH_REPORT,
                    NetFeature.GUEST_HDRLEN,
                    NetFeature.RSS,
                    NetFeature.SPEED_DUPLEX);

    /** Features that say something in the configuration. */
    private static final Features CONFIGURED =
            Features.of(
                    NetFeature.MTU,
                    NetFeature.MAC,
                    NetFeature.STATUS,
                    NetFeature.GUEST_ANNOUNCE,
                    NetFeature.MQ,
                    NetFeature.HASH_REPORT,
                    NetFeature.RSS,
                    NetFeature.SPEED_DUPLEX);

    /** Say that there are several queue pairs. */
    private static final Features SEVERAL = Features.of(NetFeature.MQ, NetFeature.RSS);

    /** Received frames that carry more than their bytes. */
    private static final Features GUEST_SEGMENTATION =
            Features.of(
                    NetFeature.GUEST_TSO4,
                    NetFeature.GUEST_TSO6,
                    NetFeature.GUEST_USO4,
                    NetFeature.GUEST_USO6);

    /** What received frames may carry, as far as that can be set. */
    private static final Features GUEST =
            GUEST_SEGMENTATION.with(NetFeature.GUEST_CSUM, NetFeature.GUEST_ECN);

    /** What the device does for frames that are sent. */
    private static final Features HOST =
            Features.of(
                    NetFeature.CSUM,
                    NetFeature.HOST_TSO4,
                    NetFeature.HOST_TSO6,
                    NetFeature.HOST_ECN,
                    NetFeature.HOST_USO);

    /** More queues than that help nobody and cost memory each. */
    static final int MAX_PAIRS = 8;

    /** Behind more than those the control queue is out of reach: such a device gets one pair. */
    private static final int MAX_DEVICE_PAIRS = 256;

    private static final int DEFAULT_MTU = 1500;
    private static final int MIN_MTU = 68;
    private static final int MOST_PAIRS = 0x8000;

    /** What to ask for, out of what is offered (5.1.3.1). */
    static Features wanted(Features offered, ConfigSpace config) {
        Features wanted = offered.and(WANTED);
        if (!wanted.and(CONFIGURED).isEmpty()) {
            try {
                config.read8(NetConfig.MAC);
                if (!wanted.and(SEVERAL).isEmpty()
                        && config.read16(NetConfig.MAX_VIRTQUEUE_PAIRS) > MAX_DEVICE_PAIRS) {
                    wanted = wanted.andNot(SEVERAL);
                }
            } catch (VirtioException e) {
                // Back-ends exist that leave all of it to who embeds them.
                wanted = wanted.andNot(CONFIGURED);
            }
        }
        if (!wanted.has(NetFeature.CTRL_VQ)) {
            wanted = wanted.without(NetFeature.CTRL_RX_EXTRA, NetFeature.HASH_REPORT);
        }
        if (!wanted.has(NetFeature.GUEST_TSO4) && !wanted.has(NetFeature.GUEST_TSO6)) {
            wanted = wanted.without(NetFeature.GUEST_ECN);
        }
        return wanted;
    }

    /** Reads the configuration as the negotiated features allow. */
    static NetLimits read(Features features, ConfigSpace config) throws VirtioException {
        byte[] mac = null;
        if (features.has(NetFeature.MAC)) {
            mac = new byte[NetConfig.MAC_BYTES];
            config.read(NetConfig.MAC, mac);
            if ((mac[0] & 1) != 0 || Arrays.equals(mac, new byte[NetConfig.MAC_BYTES])) {
                throw new VirtioException(
                        "%s is no hardware address of a card".formatted(text(mac)));
            }
        }
        int mtu = DEFAULT_MTU;
        if (features.has(NetFeature.MTU)) {
            mtu = config.read16(NetConfig.MTU);
            if (mtu < MIN_MTU) {
                throw new VirtioException(
                        "mtu of %d bytes, the least is %d".formatted(mtu, MIN_MTU));
            }
        }
        int maxPairs = 1;
        if (!features.and(SEVERAL).isEmpty()) {
            maxPairs = config.read16(NetConfig.MAX_VIRTQUEUE_PAIRS);
            if (maxPairs < 1 || maxPairs > MOST_PAIRS) {
                throw new VirtioException(
                        "max_virtqueue_pairs of %d, limits are 1 and %d"
                                .formatted(maxPairs, MOST_PAIRS));
            }
        }
        return new NetLimits(
                features,
                mac,
                mtu,
                Math.min(maxPairs, MAX_PAIRS),
                maxPairs,
                Hashing.read(features, config));
    }

    boolean has(int feature) {
        return features.has(feature);
    }

    /** Bytes of the header (5.1.6.1). */
    int headerBytes() {
        return has(NetFeature.HASH_REPORT) ? NetHeader.HASH_BYTES : NetHeader.BYTES;
    }

    /** Most bytes of a frame that is not to be segmented: what is sent, and received at least. */
    int maxFrameBytes() {
        // A device that says nothing takes what fits its own buffers.
        return has(NetFeature.MTU)
                ? mtu + NetConfig.ETHERNET_BYTES + NetConfig.VLAN_BYTES
                : NetHeader.MAX_FRAME_BYTES;
    }

    /** Buffers of {@link PacketPool} that a receive buffer is made of (5.1.6.3.1). */
    int buffersEach() {
        if (has(NetFeature.MRG_RXBUF)) {
            return 1;
        }
        int frame = mtu + NetConfig.ETHERNET_BYTES + NetConfig.VLAN_BYTES;
        if (!features.and(GUEST_SEGMENTATION).isEmpty()) {
            frame = NetHeader.MAX_FRAME_BYTES;
        }
        return (frame + PacketPool.DATA_BYTES - 1) / PacketPool.DATA_BYTES;
    }

    /** Which offloads received frames may carry. */
    Features guestOffloads() {
        return features.and(GUEST);
    }

    /** The same with no more queue pairs than there are queues for. */
    NetLimits withPairs(int most) {
        return new NetLimits(features, mac, mtu, Math.min(pairs, most), maxPairs, hashing);
    }

    /**
     * Refuses what is not the same card, or cannot do what consumers were told it can.
     *
     * @param now the address that the card has for its consumers
     * @throws VirtioException naming both values
     */
    void same(NetLimits other, byte[] now) throws VirtioException {
        if (other.mac != null && !Arrays.equals(other.mac, now)) {
            throw new VirtioException(
                    "address is %s, of the new device %s".formatted(text(now), text(other.mac)));
        }
        if (other.mac == null && mac != null) {
            throw new VirtioException(
                    "address is %s, the new device does not say one".formatted(text(now)));
        }
        if (other.mtu < mtu) {
            throw new VirtioException(
                    "mtu is %d bytes, of the new device %d".formatted(mtu, other.mtu));
        }
        if (other.pairs < pairs) {
            throw new VirtioException(
                    "%d queue pairs are in use, the new device has %d"
                            .formatted(pairs, other.pairs));
        }
        Features lost = features.and(HOST).andNot(other.features);
        if (!lost.isEmpty()) {
            throw new VirtioException(
                    "%s is in use, the new device does not offer it"
                            .formatted(NetFeature.name(lost.stream().findFirst().orElseThrow())));
        }
    }

    /** As {@code 52:54:00:12:34:56}. */
    static String text(byte[] mac) {
        return HexFormat.ofDelimiter(":").formatHex(mac);
    }
}
