package virtio.transport.vhostuser;

/**
 * Numbers of the vhost-user protocol (QEMU, docs/interop/vhost-user).
 *
 * <pre>
 * | request u32 | flags u32 | size u32 | payload, size bytes |   descriptors ride along
 * </pre>
 */
final class VhostUser {
    /** Name of the transport, the part of an address before the first colon. */
    static final String NAME = "vhost-user";

    // Message header.
    static final int HEADER_BYTES = 12;
    static final int VERSION = 1;
    static final int VERSION_MASK = 3;
    static final int REPLY = 1 << 2;
    static final int NEED_REPLY = 1 << 3;

    /** No message of the protocol is longer; a longer one is nonsense. */
    static final int MAX_PAYLOAD_BYTES = 4096;

    // Front-end message types.
    static final int GET_FEATURES = 1;
    static final int SET_FEATURES = 2;
    static final int SET_OWNER = 3;
    static final int RESET_OWNER = 4;
    static final int SET_MEM_TABLE = 5;
    static final int SET_VRING_NUM = 8;
    static final int SET_VRING_ADDR = 9;
    static final int SET_VRING_BASE = 10;
    static final int GET_VRING_BASE = 11;
    static final int SET_VRING_KICK = 12;
    static final int SET_VRING_CALL = 13;
    static final int SET_VRING_ERR = 14;
    static final int GET_PROTOCOL_FEATURES = 15;
    static final int SET_PROTOCOL_FEATURES = 16;
    static final int GET_QUEUE_NUM = 17;
    static final int SET_VRING_ENABLE = 18;
    static final int SET_BACKEND_REQ_FD = 21;
    static final int GET_CONFIG = 24;
    static final int SET_CONFIG = 25;
    static final int GET_INFLIGHT_FD = 31;
    static final int SET_INFLIGHT_FD = 32;
    static final int RESET_DEVICE = 34;
    static final int GET_MAX_MEM_SLOTS = 36;
    static final int ADD_MEM_REG = 37;
    static final int REM_MEM_REG = 38;
    static final int SET_STATUS = 39;
    static final int GET_STATUS = 40;

    // Back-end message types.
    static final int BACKEND_CONFIG_CHANGE_MSG = 2;

    /** The feature bit that means protocol features; unused by virtio itself. */
    static final int F_PROTOCOL_FEATURES = 30;

    /** The feature bit of logging for live migration; unused by virtio itself. */
    static final int F_LOG_ALL = 26;

    // Protocol feature bits.
    static final int PROTOCOL_F_MQ = 0;
    static final int PROTOCOL_F_RARP = 2;
    static final int PROTOCOL_F_REPLY_ACK = 3;
    static final int PROTOCOL_F_MTU = 4;
    static final int PROTOCOL_F_BACKEND_REQ = 5;
    static final int PROTOCOL_F_CONFIG = 9;
    static final int PROTOCOL_F_INFLIGHT_SHMFD = 12;
    static final int PROTOCOL_F_RESET_DEVICE = 13;
    static final int PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15;
    static final int PROTOCOL_F_STATUS = 16;

    /** Vring descriptor messages: the index, and a flag that no descriptor comes along. */
    static final int VRING_INDEX_MASK = 0xFF;

    static final int VRING_NOFD = 1 << 8;

    /** A vring index is 8 bits wide where descriptors are sent. */
    static final int MAX_VRINGS = 256;

    /** Most regions of SET_MEM_TABLE. */
    static final int MAX_TABLE_REGIONS = 8;

    // Sizes of payloads.
    static final int STATE_BYTES = 8;
    static final int ADDR_BYTES = 40;
    static final int REGION_BYTES = 32;
    static final int TABLE_HEADER_BYTES = 8;
    static final int SINGLE_REGION_BYTES = 8 + REGION_BYTES;
    static final int CONFIG_HEADER_BYTES = 12;
    static final int INFLIGHT_BYTES = 20;

    /** The same as QEMU sends and wants it, with the padding of its C structure. */
    static final int PADDED_INFLIGHT_BYTES = 24;

    /** Most bytes of configuration that a message carries. */
    static final int MAX_CONFIG_BYTES = 256;

    private VhostUser() {}

    /** The protocol's name of a front-end message type. */
    static String name(int request) {
        return switch (request) {
            case GET_FEATURES -> "GET_FEATURES";
            case SET_FEATURES -> "SET_FEATURES";
            case SET_OWNER -> "SET_OWNER";
            case RESET_OWNER -> "RESET_OWNER";
            case SET_MEM_TABLE -> "SET_MEM_TABLE";
            case SET_VRING_NUM -> "SET_VRING_NUM";
            case SET_VRING_ADDR -> "SET_VRING_ADDR";
            case SET_VRING_BASE -> "SET_VRING_BASE";
            case GET_VRING_BASE -> "GET_VRING_BASE";
            case SET_VRING_KICK -> "SET_VRING_KICK";
            case SET_VRING_CALL -> "SET_VRING_CALL";
            case SET_VRING_ERR -> "SET_VRING_ERR";
            case GET_PROTOCOL_FEATURES -> "GET_PROTOCOL_FEATURES";
            case SET_PROTOCOL_FEATURES -> "SET_PROTOCOL_FEATURES";
            case GET_QUEUE_NUM -> "GET_QUEUE_NUM";
            case SET_VRING_ENABLE -> "SET_VRING_ENABLE";
            case SET_BACKEND_REQ_FD -> "SET_BACKEND_REQ_FD";
            case GET_CONFIG -> "GET_CONFIG";
            case SET_CONFIG -> "SET_CONFIG";
            case GET_INFLIGHT_FD -> "GET_INFLIGHT_FD";
            case SET_INFLIGHT_FD -> "SET_INFLIGHT_FD";
            case RESET_DEVICE -> "RESET_DEVICE";
            case GET_MAX_MEM_SLOTS -> "GET_MAX_MEM_SLOTS";
            case ADD_MEM_REG -> "ADD_MEM_REG";
            case REM_MEM_REG -> "REM_MEM_REG";
            case SET_STATUS -> "SET_STATUS";
            case GET_STATUS -> "GET_STATUS";
            default -> "request " + Integer.toUnsignedString(request);
        };
    }
}
