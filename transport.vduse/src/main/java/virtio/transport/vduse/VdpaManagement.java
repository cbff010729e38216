package virtio.transport.vduse;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.linux.Errno;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;

/**
 * Adds devices to the vDPA bus and takes them off, by the kernel's netlink family {@code vdpa}
 * (include/uapi/linux/vdpa.h, netlink.h and genetlink.h); what the tool of that name does.
 *
 * <pre>
 * | length u32 | type u16 | flags u16 | sequence u32 | port u32 | command u8 | version u8 | u16 |
 * | length u16 | attribute u16 | value, padded to 4 bytes | ...
 * </pre>
 *
 * <p>Used by one thread.
 */
final class VdpaManagement implements AutoCloseable {
    private static final int AF_NETLINK = 16;
    private static final int SOCK_RAW = 3;
    private static final int NETLINK_GENERIC = 16;

    private static final int NLMSG_ERROR = 2;
    private static final int NLM_F_REQUEST = 1;
    private static final int NLM_F_ACK = 4;
    private static final int MESSAGE_HEADER_BYTES = 16;
    private static final int HEADER_BYTES = MESSAGE_HEADER_BYTES + 4;
    private static final int ATTRIBUTE_HEADER_BYTES = 4;

    private static final int GENL_ID_CTRL = 16;
    private static final int CTRL_CMD_GETFAMILY = 3;
    private static final int CTRL_ATTR_FAMILY_ID = 1;
    private static final int CTRL_ATTR_FAMILY_NAME = 2;

    private static final String FAMILY = "vdpa";
    private static final int VDPA_CMD_DEV_NEW = 3;
    private static final int VDPA_CMD_DEV_DEL = 4;
    private static final int VDPA_ATTR_MGMTDEV_DEV_NAME = 2;
    private static final int VDPA_ATTR_DEV_NAME = 4;

    /** The kernel answers before the write returns, so this is never waited for. */
    private static final int REPLY_MILLIS = 1000;

    private final FileDescriptor socket;
    private final MemorySegment message = Arena.ofAuto().allocate(8192, 8);
    private int length;
    private int sequence;

    VdpaManagement() throws LinuxException {
        socket = FileDescriptor.socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
    }

    /**
     * Adds a device; returns when drivers have seen it.
     *
     * @param parent the management device, as {@code vduse}
     * @throws LinuxException EPERM without CAP_NET_ADMIN, EEXIST when it is there, ENODEV when the
     *     parent has no such device to add
     */
    void add(String parent, String name) throws LinuxException {
        begin(family(), NLM_F_ACK, VDPA_CMD_DEV_NEW);
        attribute(VDPA_ATTR_MGMTDEV_DEV_NAME, parent);
        attribute(VDPA_ATTR_DEV_NAME, name);
        exchange("vdpa dev add", name);
    }

    /** Takes a device off; returns when its driver has let go of it. */
    void delete(String name) throws LinuxException {
        begin(family(), NLM_F_ACK, VDPA_CMD_DEV_DEL);
        attribute(VDPA_ATTR_DEV_NAME, name);
        exchange("vdpa dev del", name);
    }

    /** The number that the family has on this machine, since the module vdpa was loaded. */
    private int family() throws LinuxException {
        begin(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY);
        attribute(CTRL_ATTR_FAMILY_NAME, FAMILY);
        int end = exchange("netlink family", FAMILY);
        for (int at = HEADER_BYTES; at + ATTRIBUTE_HEADER_BYTES <= end; ) {
            int bytes = message.get(JAVA_SHORT, at) & 0xFFFF;
            if (message.get(JAVA_SHORT, at + 2) == CTRL_ATTR_FAMILY_ID) {
                return message.get(JAVA_SHORT, at + ATTRIBUTE_HEADER_BYTES) & 0xFFFF;
            }
            at += Math.max(ATTRIBUTE_HEADER_BYTES, bytes + 3 & -4);
        }
        throw new LinuxException("netlink family", FAMILY, Errno.ENOENT);
    }

    private void begin(int type, int flags, int command) {
        message.fill((byte) 0);
        message.set(JAVA_SHORT, 4, (short) type);
        message.set(JAVA_SHORT, 6, (short) (NLM_F_REQUEST | flags));
        message.set(JAVA_INT, 8, ++sequence);
        message.set(JAVA_BYTE, MESSAGE_HEADER_BYTES, (byte) command);
        message.set(JAVA_BYTE, MESSAGE_HEADER_BYTES + 1, (byte) 1);
        length = HEADER_BYTES;
    }

    private void attribute(int type, String value) {
        byte[] bytes = value.getBytes(StandardCharsets.UTF_8);
        int size = ATTRIBUTE_HEADER_BYTES + bytes.length + 1;
        message.set(JAVA_SHORT, length, (short) size);
        message.set(JAVA_SHORT, length + 2, (short) type);
        MemorySegment.copy(
                bytes, 0, message, JAVA_BYTE, length + ATTRIBUTE_HEADER_BYTES, bytes.length);
        length += size + 3 & -4;
    }

    /** Sends what was begun; the length of the answer, which is no error. */
    private int exchange(String what, String about) throws LinuxException {
        message.set(JAVA_INT, 0, length);
        socket.write(message.asSlice(0, length));
        while (true) {
            if (socket.poll(FileDescriptor.IN, REPLY_MILLIS) == 0) {
                throw new LinuxException(what, about, Errno.ETIMEDOUT);
            }
            int read = (int) socket.read(message);
            if (read >= HEADER_BYTES && message.get(JAVA_INT, 8) == sequence) {
                if (message.get(JAVA_SHORT, 4) == NLMSG_ERROR) {
                    int error = message.get(JAVA_INT, MESSAGE_HEADER_BYTES);
                    if (error != 0) {
                        throw new LinuxException(what, about, -error);
                    }
                }
                return read;
            }
        }
    }

    @Override
    public void close() {
        socket.close();
    }
}
