package virtio.api.block;

/** Feature bits of the block device (virtio 5.2.3). */
public final class BlockFeature {
    /** Largest segment is in {@link BlockConfig#SIZE_MAX}. */
    public static final int SIZE_MAX = 1;

    /** Most segments of a request are in {@link BlockConfig#SEG_MAX}. */
    public static final int SEG_MAX = 2;

    /** Disk geometry is in the configuration. */
    public static final int GEOMETRY = 4;

    /** The device is read-only. */
    public static final int RO = 5;

    /** Block size is in {@link BlockConfig#BLK_SIZE}. */
    public static final int BLK_SIZE = 6;

    /** Cache flush requests. */
    public static final int FLUSH = 9;

    /** Optimal alignment is in the configuration. */
    public static final int TOPOLOGY = 10;

    /** Write cache can be switched. */
    public static final int CONFIG_WCE = 11;

    /** Several queues. */
    public static final int MQ = 12;

    /** Discard requests. */
    public static final int DISCARD = 13;

    /** Write zeroes requests. */
    public static final int WRITE_ZEROES = 14;

    /** Lifetime requests. */
    public static final int LIFETIME = 15;

    /** Secure erase requests. */
    public static final int SECURE_ERASE = 16;

    /** Zoned storage. */
    public static final int ZONED = 17;

    private BlockFeature() {}

    /** The specification's name of a bit without its prefix, or null. */
    public static String name(int bit) {
        return switch (bit) {
            case SIZE_MAX -> "SIZE_MAX";
            case SEG_MAX -> "SEG_MAX";
            case GEOMETRY -> "GEOMETRY";
            case RO -> "RO";
            case BLK_SIZE -> "BLK_SIZE";
            case FLUSH -> "FLUSH";
            case TOPOLOGY -> "TOPOLOGY";
            case CONFIG_WCE -> "CONFIG_WCE";
            case MQ -> "MQ";
            case DISCARD -> "DISCARD";
            case WRITE_ZEROES -> "WRITE_ZEROES";
            case LIFETIME -> "LIFETIME";
            case SECURE_ERASE -> "SECURE_ERASE";
            case ZONED -> "ZONED";
            default -> null;
        };
    }
}
