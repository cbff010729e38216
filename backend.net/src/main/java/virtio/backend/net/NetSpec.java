package virtio.backend.net;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;

import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/**
 * A backend's description taken apart: {@code NAME[,mac=ADDRESS][,mtu=N][,pairs=N][,speed=MEGABITS]
 * [,tap=IF][,without=FEATURE]}, the last two any number of times.
 *
 * @param target what stands before the first comma
 * @param mac hardware address of the card; one made up where none is given
 * @param mtu most bytes of a frame's payload, {@value #MIN_MTU} to {@value #MAX_MTU}
 * @param pairs queue pairs, 1 to {@value #MAX_PAIRS}
 * @param speedMegabits what the card says that its link does; -1 where it says nothing
 * @param taps network interfaces of the host that are ports as well
 * @param without features not to offer
 */
record NetSpec(
        String target,
        byte[] mac,
        int mtu,
        int pairs,
        int speedMegabits,
        List<String> taps,
        Features without) {
    static final int MIN_MTU = 68;
    static final int MAX_MTU = 65535;
    static final int MAX_PAIRS = 64;
    private static final int DEFAULT_MTU = 1500;
    private static final String OPTIONS =
            "mac=ADDRESS, mtu=N, pairs=N, speed=MEGABITS, tap=NAME or without=FEATURE";

    static NetSpec parse(String spec) throws VirtioException {
        String[] parts = spec.split(",", -1);
        byte[] mac = null;
        int mtu = 0;
        int pairs = 0;
        int speed = -1;
        List<String> taps = new ArrayList<>();
        Features without = Features.NONE;
        for (int i = 1; i < parts.length; i++) {
            int equals = parts[i].indexOf('=');
            if (equals < 0) {
                throw new VirtioException("option '%s' is not %s".formatted(parts[i], OPTIONS));
            }
            String key = parts[i].substring(0, equals);
            String value = parts[i].substring(equals + 1);
            boolean again =
                    switch (key) {
                        case "mac" -> mac != null;
                        case "mtu" -> mtu != 0;
                        case "pairs" -> pairs != 0;
                        case "speed" -> speed >= 0;
                        default -> false;
                    };
            if (again) {
                throw new VirtioException("option %s is given twice".formatted(key));
            }
            switch (key) {
                case "mac" -> mac = address(value);
                case "mtu" -> mtu = number(key, value, MIN_MTU, MAX_MTU);
                case "pairs" -> pairs = number(key, value, 1, MAX_PAIRS);
                case "speed" -> speed = number(key, value, 0, Integer.MAX_VALUE);
                case "tap" -> taps.add(value);
                case "without" -> without = without.with(feature(value));
                default ->
                        throw new VirtioException("option '%s' is not %s".formatted(key, OPTIONS));
            }
        }
        return new NetSpec(
                parts[0],
                mac == null ? randomAddress() : mac,
                mtu == 0 ? DEFAULT_MTU : mtu,
                pairs == 0 ? 1 : pairs,
                speed,
                List.copyOf(taps),
                without);
    }

    NetSpec withTap(String name) {
        return new NetSpec(target, mac, mtu, pairs, speedMegabits, List.of(name), without);
    }

    private static byte[] randomAddress() {
        byte[] mac = new byte[NetConfig.MAC_BYTES];
        new SecureRandom().nextBytes(mac);
        // Locally administered, and no group address.
        mac[0] = (byte) (mac[0] & 0xFC | 2);
        return mac;
    }

    private static byte[] address(String value) throws VirtioException {
        try {
            byte[] mac = HexFormat.ofDelimiter(":").parseHex(value);
            if (mac.length == NetConfig.MAC_BYTES
                    && (mac[0] & 1) == 0
                    && ReceiveFilter.number(mac) != 0) {
                return mac;
            }
        } catch (IllegalArgumentException e) {
            // Reported below, as a group address is.
        }
        throw new VirtioException(
                "option mac=%s is no address of a card, as 52:54:00:12:34:56".formatted(value));
    }

    private static int feature(String value) throws VirtioException {
        for (int bit = 0; bit < Long.SIZE; bit++) {
            if (value.equals(NetFeature.name(bit)) && bit != NetFeature.MAC) {
                return bit;
            }
        }
        throw new VirtioException("option without=%s is no feature, as MRG_RXBUF".formatted(value));
    }

    private static int number(String key, String value, int least, int most)
            throws VirtioException {
        try {
            int number = Integer.parseInt(value);
            if (number >= least && number <= most) {
                return number;
            }
        } catch (NumberFormatException e) {
            // Reported below, as a number out of range is.
        }
        throw new VirtioException(
                "option %s=%s is not a number from %d to %d".formatted(key, value, least, most));
    }
}
