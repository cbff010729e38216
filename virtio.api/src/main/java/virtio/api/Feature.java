package virtio.api;

import virtio.api.block.BlockFeature;
import virtio.api.net.NetFeature;

/** Feature bits that belong to no device type (virtio 6 Reserved Feature Bits). */
public final class Feature {
    /** Descriptors may point at tables of descriptors. */
    public static final int INDIRECT_DESC = 28;

    /** Notifications are suppressed by ring index. */
    public static final int EVENT_IDX = 29;

    /** The device is not a legacy one. */
    public static final int VERSION_1 = 32;

    /** The platform limits or translates what the device may access. */
    public static final int ACCESS_PLATFORM = 33;

    /** Packed virtqueue layout. */
    public static final int RING_PACKED = 34;

    /** Buffers are used in the order in which they were made available. */
    public static final int IN_ORDER = 35;

    /** Memory is ordered as for hardware devices. */
    public static final int ORDER_PLATFORM = 36;

    /** Single root I/O virtualisation. */
    public static final int SR_IOV = 37;

    /** Notifications carry the ring position. */
    public static final int NOTIFICATION_DATA = 38;

    /** Notifications carry data that the device supplied. */
    public static final int NOTIF_CONFIG_DATA = 39;

    /** Queues can be reset one by one. */
    public static final int RING_RESET = 40;

    /** The device has administration queues. */
    public static final int ADMIN_VQ = 41;

    private Feature() {}

    /** The specification's name of a bit without its prefix, or {@code bit 77}. */
    public static String name(int deviceType, int bit) {
        String common =
                switch (bit) {
                    case 24 -> "NOTIFY_ON_EMPTY";
                    case 27 -> "ANY_LAYOUT";
                    case INDIRECT_DESC -> "INDIRECT_DESC";
                    case EVENT_IDX -> "EVENT_IDX";
                    case VERSION_1 -> "VERSION_1";
                    case ACCESS_PLATFORM -> "ACCESS_PLATFORM";
                    case RING_PACKED -> "RING_PACKED";
                    case IN_ORDER -> "IN_ORDER";
                    case ORDER_PLATFORM -> "ORDER_PLATFORM";
                    case SR_IOV -> "SR_IOV";
                    case NOTIFICATION_DATA -> "NOTIFICATION_DATA";
                    case NOTIF_CONFIG_DATA -> "NOTIF_CONFIG_DATA";
                    case RING_RESET -> "RING_RESET";
                    case ADMIN_VQ -> "ADMIN_VQ";
                    default -> null;
                };
        if (common != null) {
            return common;
        }
        String own =
                switch (deviceType) {
                    case DeviceType.BLOCK -> BlockFeature.name(bit);
                    case DeviceType.NETWORK -> NetFeature.name(bit);
                    default -> null;
                };
        return own != null ? own : "bit " + bit;
    }
}
