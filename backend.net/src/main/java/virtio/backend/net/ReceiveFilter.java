package virtio.backend.net;

import virtio.api.Features;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;
import virtio.api.net.ReceiveMode;

import java.util.Arrays;
import java.util.EnumSet;
import java.util.Set;

/**
 * What a driver wants to receive (virtio 5.1.6.5.1 to 5.1.6.5.3), from reset on. Immutable, so that
 * senders need no lock.
 *
 * @param filters whether there is a filter at all: CTRL_RX is negotiated
 * @param filtersVlans whether VLANs are filtered
 * @param mac the card's own address
 * @param modes what was switched on
 * @param unicast further addresses
 * @param multicast group addresses
 * @param vlans a bit for each
 */
record ReceiveFilter(
        boolean filters,
        boolean filtersVlans,
        long mac,
        Set<ReceiveMode> modes,
        long[] unicast,
        long[] multicast,
        long[] vlans) {
    /** Addresses in each table. */
    static final int MAX_ADDRESSES = 256;

    private static final int VLAN_WORDS = 4096 / Long.SIZE;
    private static final long BROADCAST = 0xFFFF_FFFF_FFFFL;
    private static final long GROUP = 1L << 40;
    private static final long[] NONE = {};

    static ReceiveFilter of(Features features, long mac) {
        return new ReceiveFilter(
                features.has(NetFeature.CTRL_RX),
                features.has(NetFeature.CTRL_VLAN),
                mac,
                EnumSet.noneOf(ReceiveMode.class),
                NONE,
                NONE,
                new long[VLAN_WORDS]);
    }

    ReceiveFilter with(ReceiveMode mode, boolean on) {
        Set<ReceiveMode> now = EnumSet.copyOf(modes);
        if (on) {
            now.add(mode);
        } else {
            now.remove(mode);
        }
        return new ReceiveFilter(filters, filtersVlans, mac, now, unicast, multicast, vlans);
    }

    ReceiveFilter with(long[] unicast, long[] multicast) {
        return new ReceiveFilter(filters, filtersVlans, mac, modes, unicast, multicast, vlans);
    }

    ReceiveFilter withMac(long mac) {
        return new ReceiveFilter(filters, filtersVlans, mac, modes, unicast, multicast, vlans);
    }

    ReceiveFilter withVlan(int vlan, boolean on) {
        long[] now = vlans.clone();
        if (on) {
            now[vlan / Long.SIZE] |= 1L << vlan;
        } else {
            now[vlan / Long.SIZE] &= ~(1L << vlan);
        }
        return new ReceiveFilter(filters, filtersVlans, mac, modes, unicast, multicast, now);
    }

    boolean accepts(Frame frame) {
        int vlan = filtersVlans ? frame.vlan() : -1;
        if (vlan >= 0 && (vlans[vlan / Long.SIZE] & 1L << vlan) == 0) {
            return false;
        }
        if (!filters || modes.contains(ReceiveMode.PROMISCUOUS)) {
            return true;
        }
        long to = frame.destination();
        if (to == BROADCAST) {
            return !modes.contains(ReceiveMode.NO_BROADCAST);
        }
        if ((to & GROUP) != 0) {
            return !modes.contains(ReceiveMode.NO_MULTICAST)
                    && (modes.contains(ReceiveMode.ALL_MULTICAST) || contains(multicast, to));
        }
        return !modes.contains(ReceiveMode.NO_UNICAST)
                && (to == mac || modes.contains(ReceiveMode.ALL_UNICAST) || contains(unicast, to));
    }

    private static boolean contains(long[] addresses, long address) {
        for (long a : addresses) {
            if (a == address) {
                return true;
            }
        }
        return false;
    }

    /** The address as a number. */
    static long number(byte[] address) {
        long number = 0;
        for (int i = 0; i < NetConfig.MAC_BYTES; i++) {
            number = number << 8 | address[i] & 0xFF;
        }
        return number;
    }

    @Override
    public String toString() {
        return "%s, %s".formatted(modes, Arrays.toString(unicast));
    }
}
