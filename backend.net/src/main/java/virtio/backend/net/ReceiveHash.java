package virtio.backend.net;

import virtio.api.net.HashType;

import java.util.Arrays;
import java.util.Set;

/**
 * Hashes received frames by Toeplitz' function (virtio 5.1.6.4.3), and says which queue pair gets
 * them by it (5.1.6.5.7.2). Immutable; {@link #of} allocates nothing.
 *
 * <p>The function is linear: what a byte of the input adds depends on its place and value only, so
 * that is looked up.
 */
final class ReceiveHash {
    /** Bytes of the longest key that makes a difference. */
    static final int MAX_KEY = 40;

    static final int MAX_TABLE = 128;

    /** What can be hashed: all there is. */
    static final int TYPES = HashType.mask(Set.of(HashType.values()));

    /** In place of a hash with its type: the frame has none. */
    static final long NONE = 0;

    private static final int MAX_INPUT = 2 * 16 + 2 * Short.BYTES;
    private static final int VALUES = 1 << Byte.SIZE;

    static final int ETHERNET_IPV4 = 0x0800;
    static final int ETHERNET_IPV6 = 0x86DD;
    private static final int IPV4_BYTES = 20;
    private static final int IPV6_BYTES = 40;
    private static final int IPV6_ADDRESS = 16;
    private static final int TCP = 6;
    private static final int UDP = 17;
    private static final int HOP_BY_HOP = 0;
    private static final int ROUTING = 43;
    private static final int FRAGMENT = 44;
    private static final int DESTINATION = 60;
    private static final int ROUTING_TYPE_2 = 2;
    private static final int HOME_ADDRESS = 0xC9;

    /** More extension headers than that are looked through by nobody. */
    private static final int MAX_EXTENSIONS = 8;

    private final int types;

    /** What a byte adds to the hash, by its place and value. */
    private final int[] added;

    /** Queue pairs by the hash; empty where it does not steer. */
    private final int[] table;

    private final int unclassified;

    /**
     * Out of checked parameters.
     *
     * @param types a mask of hash types
     * @param key at most {@value #MAX_KEY} bytes
     * @param table a power of two of queue pairs, or none
     */
    ReceiveHash(int types, byte[] key, int[] table, int unclassified) {
        this(types, added(key), table.clone(), unclassified);
    }

    private ReceiveHash(int types, int[] added, int[] table, int unclassified) {
        this.types = types;
        this.added = added;
        this.table = table;
        this.unclassified = unclassified;
    }

    private static int[] added(byte[] key) {
        byte[] k = Arrays.copyOf(key, MAX_KEY);
        int[] added = new int[MAX_INPUT * VALUES];
        for (int at = 0; at < MAX_INPUT; at++) {
            long window = 0;
            for (int i = 0; i < Integer.BYTES + 1; i++) {
                window = window << Byte.SIZE | k[at + i] & 0xFF;
            }
            for (int bit = 0; bit < Byte.SIZE; bit++) {
                // The highest bit of the byte meets the key's bits from its own place on.
                int part = (int) (window >>> Byte.SIZE - bit);
                int value = 0x80 >>> bit;
                for (int v = 0; v < VALUES; v++) {
                    added[at * VALUES + v] ^= (v & value) != 0 ? part : 0;
                }
            }
        }
        return added;
    }

    /** The same without a table. */
    ReceiveHash unsteered() {
        return new ReceiveHash(types, added, new int[0], 0);
    }

    boolean steers() {
        return table.length != 0;
    }

    /** The queue pair of a frame with that hash. */
    int pair(long hash) {
        return hash == NONE ? unclassified : table[(int) hash & table.length - 1];
    }

    /** The number in a header for what was hashed. */
    static int report(long hash) {
        return (int) (hash >>> Integer.SIZE);
    }

    /** The hash in the lower 32 bits and its {@link #report} above, or {@link #NONE}. */
    long of(Frame frame) {
        int ip = frame.ethernetBytes();
        return switch (frame.get16(ip - Short.BYTES)) {
            case ETHERNET_IPV4 -> ipv4(frame, ip);
            case ETHERNET_IPV6 -> ipv6(frame, ip);
            default -> NONE;
        };
    }

    private long ipv4(Frame frame, int ip) {
        if (frame.length < ip + IPV4_BYTES || frame.get8(ip) >>> 4 != 4) {
            return NONE;
        }
        int header = (frame.get8(ip) & 0xF) * Integer.BYTES;
        // Neither more to come nor an offset: only a whole datagram has its ports for certain.
        boolean whole = (frame.get16(ip + 6) & 0x3FFF) == 0;
        int ports = header < IPV4_BYTES || !whole ? -1 : ip + header;
        int protocol = frame.get8(ip + 9);
        HashType type = type(frame, ports, protocol, HashType.TCPV4, HashType.UDPV4, HashType.IPV4);
        return type == null ? NONE : hash(frame, type, ip + 12, ip + 16, 4, ports);
    }

    private long ipv6(Frame frame, int ip) {
        if (frame.length < ip + IPV6_BYTES || frame.get8(ip) >>> 4 != 6) {
            return NONE;
        }
        int source = ip + 8;
        int destination = source + IPV6_ADDRESS;
        int home = source;
        int routed = destination;
        int next = frame.get8(ip + 6);
        int at = ip + IPV6_BYTES;
        int extensions = 0;
        boolean whole = true;
        while (extension(next)) {
            if (++extensions > MAX_EXTENSIONS || at + 8 > frame.length) {
                whole = false;
                break;
            }
            int bytes = next == FRAGMENT ? 8 : (frame.get8(at + 1) + 1) * 8;
            if (at + bytes > frame.length) {
                whole = false;
                break;
            }
            if (next == FRAGMENT) {
                whole &= (frame.get16(at + 2) & 0xFFF9) == 0;
            } else if (next == ROUTING && frame.get8(at + 2) == ROUTING_TYPE_2 && bytes == 24) {
                routed = at + 8;
            } else if (next == DESTINATION) {
                home = homeAddress(frame, at, bytes, home);
            }
            next = frame.get8(at);
            at += bytes;
        }
        int ports = whole ? at : -1;
        HashType type = null;
        if (extensions != 0) {
            type = type(frame, ports, next, HashType.TCP_EX, HashType.UDP_EX, HashType.IP_EX);
            if (type != null) {
                return hash(frame, type, home, routed, IPV6_ADDRESS, ports);
            }
        }
        type = type(frame, ports, next, HashType.TCPV6, HashType.UDPV6, HashType.IPV6);
        return type == null ? NONE : hash(frame, type, source, destination, IPV6_ADDRESS, ports);
    }

    private static boolean extension(int header) {
        return header == HOP_BY_HOP
                || header == ROUTING
                || header == FRAGMENT
                || header == DESTINATION;
    }

    /** Where the home address lies in a destination options header (RFC 6275 6.3). */
    private static int homeAddress(Frame frame, int header, int bytes, int otherwise) {
        int at = header + 2;
        int end = header + bytes;
        while (at + 2 <= end) {
            int option = frame.get8(at);
            // Pad1 alone has no length.
            int length = option == 0 ? -1 : frame.get8(at + 1);
            if (option == HOME_ADDRESS && length == IPV6_ADDRESS && at + 2 + length <= end) {
                return at + 2;
            }
            at += 2 + length;
        }
        return otherwise;
    }

    /** The first of the enabled types that fits; null when none does. */
    private HashType type(
            Frame frame, int ports, int protocol, HashType tcp, HashType udp, HashType addresses) {
        if (ports >= 0) {
            if (protocol == TCP && enabled(tcp) && ports + 20 <= frame.length) {
                return tcp;
            }
            if (protocol == UDP && enabled(udp) && ports + 8 <= frame.length) {
                return udp;
            }
        }
        return enabled(addresses) ? addresses : null;
    }

    private boolean enabled(HashType type) {
        return (types & 1 << type.ordinal()) != 0;
    }

    private long hash(
            Frame frame, HashType type, int source, int destination, int bytes, int ports) {
        int hash = 0;
        int at = 0;
        for (int i = 0; i < bytes; i++) {
            hash ^= added[at++ * VALUES + frame.get8(source + i)];
        }
        for (int i = 0; i < bytes; i++) {
            hash ^= added[at++ * VALUES + frame.get8(destination + i)];
        }
        boolean addressesOnly =
                type == HashType.IPV4 || type == HashType.IPV6 || type == HashType.IP_EX;
        for (int i = 0; i < (addressesOnly ? 0 : 4); i++) {
            hash ^= added[at++ * VALUES + frame.get8(ports + i)];
        }
        return (long) type.ordinal() + 1 << Integer.SIZE | hash & 0xFFFF_FFFFL;
    }
}
