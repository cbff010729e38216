package virtio.api.net;

/** Feature bits of the network device (virtio 5.1.3). */
public final class NetFeature {
    /** The device takes packets with a partial checksum. */
    public static final int CSUM = 0;

    /** The driver takes packets with a partial checksum. */
    public static final int GUEST_CSUM = 1;

    /** The driver's offloads can be switched. */
    public static final int CTRL_GUEST_OFFLOADS = 2;

    /** The largest payload is in {@link NetConfig#MTU}. */
    public static final int MTU = 3;

    /** The hardware address is in {@link NetConfig#MAC}. */
    public static final int MAC = 5;

    /** The driver takes TCP over IPv4 unsegmented. */
    public static final int GUEST_TSO4 = 7;

    /** The driver takes TCP over IPv6 unsegmented. */
    public static final int GUEST_TSO6 = 8;

    /** The driver takes unsegmented TCP with congestion notification. */
    public static final int GUEST_ECN = 9;

    /** The driver takes UDP over IPv4 and IPv6 that is to be fragmented. */
    public static final int GUEST_UFO = 10;

    /** The device takes TCP over IPv4 unsegmented. */
    public static final int HOST_TSO4 = 11;

    /** The device takes TCP over IPv6 unsegmented. */
    public static final int HOST_TSO6 = 12;

    /** The device takes unsegmented TCP with congestion notification. */
    public static final int HOST_ECN = 13;

    /** The device takes UDP over IPv4 and IPv6 that is to be fragmented. */
    public static final int HOST_UFO = 14;

    /** A frame may be spread over several receive buffers. */
    public static final int MRG_RXBUF = 15;

    /** The link's state is in {@link NetConfig#STATUS}. */
    public static final int STATUS = 16;

    /** There is a control queue. */
    public static final int CTRL_VQ = 17;

    /** Receive modes and filters can be set. */
    public static final int CTRL_RX = 18;

    /** VLANs can be filtered. */
    public static final int CTRL_VLAN = 19;

    /** More receive modes. */
    public static final int CTRL_RX_EXTRA = 20;

    /** The driver announces itself when it is asked to. */
    public static final int GUEST_ANNOUNCE = 21;

    /** Several queue pairs, up to {@link NetConfig#MAX_VIRTQUEUE_PAIRS}. */
    public static final int MQ = 22;

    /** The hardware address can be set by the control queue. */
    public static final int CTRL_MAC_ADDR = 23;

    /** Packets in tunnels are hashed by what is inside. */
    public static final int HASH_TUNNEL = 51;

    /** Notifications can be delayed, each queue's by itself. */
    public static final int VQ_NOTF_COAL = 52;

    /** Notifications can be delayed. */
    public static final int NOTF_COAL = 53;

    /** The driver takes UDP over IPv4 unsegmented. */
    public static final int GUEST_USO4 = 54;

    /** The driver takes UDP over IPv6 unsegmented. */
    public static final int GUEST_USO6 = 55;

    /** The device takes UDP unsegmented. */
    public static final int HOST_USO = 56;

    /** The header carries a hash; it then has 20 bytes. */
    public static final int HASH_REPORT = 57;

    /** The driver says the exact length of headers. */
    public static final int GUEST_HDRLEN = 59;

    /** Received packets go to queue pairs by their hash. */
    public static final int RSS = 60;

    /** The device joins received segments, and says how many there were. */
    public static final int RSC_EXT = 61;

    /** Speed and duplex are in the configuration. */
    public static final int SPEED_DUPLEX = 63;

    /** Packets are spread in more than one way at once. */
    public static final int RSS_CONTEXT = 64;

    /** The driver takes unsegmented packets in UDP tunnels. */
    public static final int GUEST_UDP_TUNNEL_GSO = 65;

    /** The driver takes them with a partial checksum of the tunnel's header. */
    public static final int GUEST_UDP_TUNNEL_GSO_CSUM = 66;

    /** The device takes unsegmented packets in UDP tunnels. */
    public static final int HOST_UDP_TUNNEL_GSO = 67;

    /** The device takes them with a partial checksum of the tunnel's header. */
    public static final int HOST_UDP_TUNNEL_GSO_CSUM = 68;

    private NetFeature() {}

    /** The specification's name of a bit without its prefix, or null. */
    public static String name(int bit) {
        return switch (bit) {
            case CSUM -> "CSUM";
            case GUEST_CSUM -> "GUEST_CSUM";
            case CTRL_GUEST_OFFLOADS -> "CTRL_GUEST_OFFLOADS";
            case MTU -> "MTU";
            case MAC -> "MAC";
            case GUEST_TSO4 -> "GUEST_TSO4";
            case GUEST_TSO6 -> "GUEST_TSO6";
            case GUEST_ECN -> "GUEST_ECN";
            case GUEST_UFO -> "GUEST_UFO";
            case HOST_TSO4 -> "HOST_TSO4";
            case HOST_TSO6 -> "HOST_TSO6";
            case HOST_ECN -> "HOST_ECN";
            case HOST_UFO -> "HOST_UFO";
            case MRG_RXBUF -> "MRG_RXBUF";
            case STATUS -> "STATUS";
            case CTRL_VQ -> "CTRL_VQ";
            case CTRL_RX -> "CTRL_RX";
            case CTRL_VLAN -> "CTRL_VLAN";
            case CTRL_RX_EXTRA -> "CTRL_RX_EXTRA";
            case GUEST_ANNOUNCE -> "GUEST_ANNOUNCE";
            case MQ -> "MQ";
            case CTRL_MAC_ADDR -> "CTRL_MAC_ADDR";
            case 50 -> "DEVICE_STATS";
            case HASH_TUNNEL -> "HASH_TUNNEL";
            case VQ_NOTF_COAL -> "VQ_NOTF_COAL";
            case NOTF_COAL -> "NOTF_COAL";
            case GUEST_USO4 -> "GUEST_USO4";
            case GUEST_USO6 -> "GUEST_USO6";
            case HOST_USO -> "HOST_USO";
            case HASH_REPORT -> "HASH_REPORT";
            case GUEST_HDRLEN -> "GUEST_HDRLEN";
            case RSS -> "RSS";
            case RSC_EXT -> "RSC_EXT";
            case 62 -> "STANDBY";
            case SPEED_DUPLEX -> "SPEED_DUPLEX";
            case RSS_CONTEXT -> "RSS_CONTEXT";
            case GUEST_UDP_TUNNEL_GSO -> "GUEST_UDP_TUNNEL_GSO";
            case GUEST_UDP_TUNNEL_GSO_CSUM -> "GUEST_UDP_TUNNEL_GSO_CSUM";
            case HOST_UDP_TUNNEL_GSO -> "HOST_UDP_TUNNEL_GSO";
            case HOST_UDP_TUNNEL_GSO_CSUM -> "HOST_UDP_TUNNEL_GSO_CSUM";
            case 69 -> "OUT_NET_HEADER";
            case 70 -> "IPSEC";
            default -> null;
        };
    }
}
