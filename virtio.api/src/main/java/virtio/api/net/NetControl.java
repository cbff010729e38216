package virtio.api.net;

/** Classes and commands of the control queue (virtio 5.1.6.5). */
public final class NetControl {
    /** Answer: done. */
    public static final int OK = 0;

    /** Answer: refused. */
    public static final int ERR = 1;

    /** Class: receive modes, each command with one byte that switches it. */
    public static final int RX = 0;

    /** Class: addresses. */
    public static final int MAC = 1;

    /** Command of {@link #MAC}: the filter table. */
    public static final int MAC_TABLE_SET = 0;

    /** Command of {@link #MAC}: the card's own address. */
    public static final int MAC_ADDR_SET = 1;

    /** Class: the VLAN filter, each command with a 16-bit number. */
    public static final int VLAN = 2;

    /** Command of {@link #VLAN}. */
    public static final int VLAN_ADD = 0;

    /** Command of {@link #VLAN}. */
    public static final int VLAN_DEL = 1;

    /** Class and command 0: the driver has announced itself. */
    public static final int ANNOUNCE = 3;

    /** Class: several queue pairs. */
    public static final int MQ = 4;

    /** Command of {@link #MQ}: a 16-bit number of pairs. */
    public static final int MQ_VQ_PAIRS_SET = 0;

    /** Command of {@link #MQ}: hash types and key, and queues by the hash. */
    public static final int MQ_RSS_CONFIG = 1;

    /** Command of {@link #MQ}: hash types and key, without steering. */
    public static final int MQ_HASH_CONFIG = 2;

    /** Class and command 0: 64 bits, the driver's offloads as feature bits. */
    public static final int GUEST_OFFLOADS = 5;

    /** Class: delayed notifications; packets and microseconds, of 32 bits each. */
    public static final int NOTF_COAL = 6;

    /** Command of {@link #NOTF_COAL}: for all transmit queues. */
    public static final int NOTF_COAL_TX_SET = 0;

    /** Command of {@link #NOTF_COAL}: for all receive queues. */
    public static final int NOTF_COAL_RX_SET = 1;

    /** Command of {@link #NOTF_COAL}: for one queue, behind its number and 16 reserved bits. */
    public static final int NOTF_COAL_VQ_SET = 2;

    /**
     * Command of {@link #NOTF_COAL}: asks what one queue has; the answer's numbers lie before the
     * ack.
     */
    public static final int NOTF_COAL_VQ_GET = 3;

    private NetControl() {}
}
