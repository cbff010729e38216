package virtio.api.net;

/** Byte offsets in {@code struct virtio_net_config}, little-endian (virtio 5.1.4). */
public final class NetConfig {
    /** 6 bytes: hardware address, with {@link NetFeature#MAC}. */
    public static final int MAC = 0;

    /** 16 bits: {@link #S_LINK_UP} and {@link #S_ANNOUNCE}, with {@link NetFeature#STATUS}. */
    public static final int STATUS = 6;

    /** 16 bits: most queue pairs, with {@link NetFeature#MQ} or {@link NetFeature#RSS}. */
    public static final int MAX_VIRTQUEUE_PAIRS = 8;

    /** 16 bits: most bytes of a frame's payload, with {@link NetFeature#MTU}. */
    public static final int MTU = 10;

    /** 32 bits: megabits a second, with {@link NetFeature#SPEED_DUPLEX}. */
    public static final int SPEED = 12;

    /**
     * 8 bits: 1 for full duplex, 0 for half, everything else for unknown. So 5.1.4 and Linux have
     * it; 5.1.4.1 says it the other way round.
     */
    public static final int DUPLEX = 16;

    /** 8 bits: most bytes of a hash key, 40 or more, with {@link NetFeature#RSS} or HASH_REPORT. */
    public static final int RSS_MAX_KEY_SIZE = 17;

    /** 16 bits: most entries of an indirection table, 128 or more, with {@link NetFeature#RSS}. */
    public static final int RSS_MAX_INDIRECTION_TABLE_LENGTH = 18;

    /** 32 bits: a mask of {@link HashType}s, with {@link NetFeature#RSS} or HASH_REPORT. */
    public static final int SUPPORTED_HASH_TYPES = 20;

    /** Bytes up to and including the hash fields. */
    public static final int BYTES = 24;

    /** Least value of {@link #RSS_MAX_KEY_SIZE}: what the longest input needs. */
    public static final int HASH_KEY_BYTES = 40;

    /** Least value of {@link #RSS_MAX_INDIRECTION_TABLE_LENGTH}. */
    public static final int TABLE_LENGTH = 128;

    /** Status: the link is up. */
    public static final int S_LINK_UP = 1;

    /** Status: the driver should announce itself. */
    public static final int S_ANNOUNCE = 2;

    /** Bytes of a hardware address. */
    public static final int MAC_BYTES = 6;

    /** Bytes of a frame before its payload: two addresses and a type. */
    public static final int ETHERNET_BYTES = 14;

    /** Bytes of a VLAN tag, which count to neither header nor payload. */
    public static final int VLAN_BYTES = 4;

    private NetConfig() {}
}
