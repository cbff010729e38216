package virtio.api.net;

/** Feature bits of the network device (virtio 5.1.3). */
public final class NetFeature {
    private NetFeature() {}

    /** The specification's name of a bit without its prefix, or null. */
    public static String name(int bit) {
        return switch (bit) {
            case 0 -> "CSUM";
            case 1 -> "GUEST_CSUM";
            case 2 -> "CTRL_GUEST_OFFLOADS";
            case 3 -> "MTU";
            case 5 -> "MAC";
            case 7 -> "GUEST_TSO4";
            case 8 -> "GUEST_TSO6";
            case 9 -> "GUEST_ECN";
            case 10 -> "GUEST_UFO";
            case 11 -> "HOST_TSO4";
            case 12 -> "HOST_TSO6";
            case 13 -> "HOST_ECN";
            case 14 -> "HOST_UFO";
            case 15 -> "MRG_RXBUF";
            case 16 -> "STATUS";
            case 17 -> "CTRL_VQ";
            case 18 -> "CTRL_RX";
            case 19 -> "CTRL_VLAN";
            case 20 -> "CTRL_RX_EXTRA";
            case 21 -> "GUEST_ANNOUNCE";
            case 22 -> "MQ";
            case 23 -> "CTRL_MAC_ADDR";
            case 50 -> "DEVICE_STATS";
            case 51 -> "HASH_TUNNEL";
            case 52 -> "VQ_NOTF_COAL";
            case 53 -> "NOTF_COAL";
            case 54 -> "GUEST_USO4";
            case 55 -> "GUEST_USO6";
            case 56 -> "HOST_USO";
            case 57 -> "HASH_REPORT";
            case 59 -> "GUEST_HDRLEN";
            case 60 -> "RSS";
            case 61 -> "RSC_EXT";
            case 62 -> "STANDBY";
            case 63 -> "SPEED_DUPLEX";
            default -> null;
        };
    }
}
