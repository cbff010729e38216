package virtio.api.net;

/**
 * {@code struct virtio_net_hdr}, little-endian, before every frame (virtio 5.1.6).
 *
 * <pre>
 * 0       1          2         4          6            8             10            12   16   18    20
 * | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | num_buffers | hash | type | 0 |
 * </pre>
 */
public final class NetHeader {
    /** Bytes of the header. */
    public static final int BYTES = 12;

    /** Bytes of the header with {@link NetFeature#HASH_REPORT}. */
    public static final int HASH_BYTES = 20;

    /** 8 bits. */
    public static final int FLAGS = 0;

    /** 8 bits. */
    public static final int GSO_TYPE = 1;

    /** 16 bits: bytes of the headers, the transport's included. */
    public static final int HDR_LEN = 2;

    /** 16 bits: bytes of a segment's payload. */
    public static final int GSO_SIZE = 4;

    /** 16 bits: where checksumming begins. */
    public static final int CSUM_START = 6;

    /** 16 bits: where the checksum is stored, from there. */
    public static final int CSUM_OFFSET = 8;

    /** 16 bits: receive buffers that the frame is spread over. */
    public static final int NUM_BUFFERS = 10;

    /** 32 bits. */
    public static final int HASH_VALUE = 12;

    /** 16 bits: what was hashed, as {@link HashType#ofReport} says; 0 for nothing. */
    public static final int HASH_TYPE = 16;

    /** Flag: the checksum is partial. */
    public static final int F_NEEDS_CSUM = 1;

    /** Flag: the checksum was verified. */
    public static final int F_DATA_VALID = 2;

    /** Segmentation: none. */
    public static final int GSO_NONE = 0;

    /** Segmentation: TCP over IPv4. */
    public static final int GSO_TCPV4 = 1;

    /** Segmentation: TCP over IPv6. */
    public static final int GSO_TCPV6 = 4;

    /** Segmentation: UDP. */
    public static final int GSO_UDP_L4 = 5;

    /** Added to a TCP segmentation: the packet has ECN set. */
    public static final int GSO_ECN = 0x80;

    /** Most bytes of a frame: a 16-bit IP length behind an Ethernet header with a VLAN tag. */
    public static final int MAX_FRAME_BYTES =
            0xFFFF + NetConfig.ETHERNET_BYTES + NetConfig.VLAN_BYTES;

    private NetHeader() {}
}
