package virtio.api.net;

import java.util.EnumSet;
import java.util.Set;

/**
 * What a device can hash of a received packet (virtio 5.1.6.4.3.1); the ordinal is the bit in
 * masks, and one less than the number in a header's {@link NetHeader#HASH_TYPE}.
 */
public enum HashType {
    /** Both addresses. */
    IPV4,
    /** Both addresses and both ports. */
    TCPV4,
    /** Both addresses and both ports. */
    UDPV4,
    /** Both addresses, where the packet has no extension headers. */
    IPV6,
    /** Both addresses and both ports, where the packet has no extension headers. */
    TCPV6,
    /** Both addresses and both ports, where the packet has no extension headers. */
    UDPV6,
    /** As {@link #IPV6}; mobile nodes by their home addresses, out of the extension headers. */
    IP_EX,
    /** As {@link #TCPV6}; mobile nodes by their home addresses, out of the extension headers. */
    TCP_EX,
    /** As {@link #UDPV6}; mobile nodes by their home addresses, out of the extension headers. */
    UDP_EX;

    /** The largest number in a header. */
    public static final int MAX_REPORT = UDP_EX.ordinal() + 1;

    private static final HashType[] ALL = values();

    /** What the number in a header says; null for 0 and for numbers without a meaning. */
    public static HashType ofReport(int number) {
        return number < 1 || number > MAX_REPORT ? null : ALL[number - 1];
    }

    /** The types that a mask names; other bits mean nothing. */
    public static Set<HashType> ofMask(int mask) {
        Set<HashType> types = EnumSet.noneOf(HashType.class);
        for (HashType type : ALL) {
            if ((mask & 1 << type.ordinal()) != 0) {
                types.add(type);
            }
        }
        return types;
    }

    /** The mask that names these types. */
    public static int mask(Set<HashType> types) {
        return types.stream().mapToInt(type -> 1 << type.ordinal()).sum();
    }
}
