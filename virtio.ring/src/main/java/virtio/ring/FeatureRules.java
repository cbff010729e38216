package virtio.ring;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;

import java.util.ArrayList;
import java.util.List;

/** Which feature bits belong to whom, and which need which (virtio 2.2 Feature Bits). */
final class FeatureRules {
    /**
     * One line of "feature bit requirements": the bit needs any one of the others; of all its
     * lines.
     */
    private record Rule(int bit, int... anyOf) {}

    /** Bits of a device end that its transport takes off and looks after by itself. */
    static final Features TRANSPORT =
            Features.of(
                    Feature.ACCESS_PLATFORM,
                    Feature.ORDER_PLATFORM,
                    Feature.SR_IOV,
                    Feature.NOTIFICATION_DATA,
                    Feature.NOTIF_CONFIG_DATA,
                    Feature.ADMIN_VQ);

    /** Virtio 5.1.3.1 Feature bit requirements of the network device. */
    private static final List<Rule> NET =
            List.of(
                    new Rule(7, 1), // GUEST_TSO4: GUEST_CSUM
                    new Rule(8, 1), // GUEST_TSO6: GUEST_CSUM
                    new Rule(9, 7, 8), // GUEST_ECN: GUEST_TSO4 or GUEST_TSO6
                    new Rule(10, 1), // GUEST_UFO: GUEST_CSUM
                    new Rule(54, 1), // GUEST_USO4: GUEST_CSUM
                    new Rule(55, 1), // GUEST_USO6: GUEST_CSUM
                    new Rule(11, 0), // HOST_TSO4: CSUM
                    new Rule(12, 0), // HOST_TSO6: CSUM
                    new Rule(13, 11, 12), // HOST_ECN: HOST_TSO4 or HOST_TSO6
                    new Rule(14, 0), // HOST_UFO: CSUM
                    new Rule(56, 0), // HOST_USO: CSUM
                    new Rule(18, 17), // CTRL_RX: CTRL_VQ
                    new Rule(19, 17), // CTRL_VLAN: CTRL_VQ
                    new Rule(21, 17), // GUEST_ANNOUNCE: CTRL_VQ
                    new Rule(22, 17), // MQ: CTRL_VQ
                    new Rule(23, 17), // CTRL_MAC_ADDR: CTRL_VQ
                    new Rule(53, 17), // NOTF_COAL: CTRL_VQ
                    new Rule(61, 11, 12), // RSC_EXT: HOST_TSO4 or HOST_TSO6
                    new Rule(60, 17), // RSS: CTRL_VQ
                    new Rule(52, 17), // VQ_NOTF_COAL: CTRL_VQ
                    new Rule(51, 17), // HASH_TUNNEL: CTRL_VQ along with …
                    new Rule(51, 60, 57), // … RSS or HASH_REPORT
                    new Rule(64, 60), // RSS_CONTEXT: RSS, and CTRL_VQ by that
                    new Rule(65, 7), // GUEST_UDP_TUNNEL_GSO: GUEST_TSO4, …
                    new Rule(65, 8), // … GUEST_TSO6, …
                    new Rule(65, 54), // … GUEST_USO4 …
                    new Rule(65, 55), // … and GUEST_USO6
                    new Rule(66, 65), // GUEST_UDP_TUNNEL_GSO_CSUM: GUEST_UDP_TUNNEL_GSO
                    new Rule(67, 11), // HOST_UDP_TUNNEL_GSO: HOST_TSO4, …
                    new Rule(67, 12), // … HOST_TSO6 …
                    new Rule(67, 56), // … and HOST_USO
                    new Rule(68, 67)); // HOST_UDP_TUNNEL_GSO_CSUM: HOST_UDP_TUNNEL_GSO

    private FeatureRules() {}

    /** What device types define: bits 0 to 23 and 50 to 127, but not those of ring and platform. */
    static Features ofDeviceType(Features features) {
        return Features.of(
                features.stream().filter(bit -> bit < 24 || bit >= 50 && bit < 128).toArray());
    }

    /** The set less every bit that needs another one that is not in it. */
    static Features satisfied(int deviceType, Features features) {
        Features kept = features;
        List<Integer> broken = broken(deviceType, kept);
        while (!broken.isEmpty()) {
            kept = kept.without(broken.stream().mapToInt(Integer::intValue).toArray());
            broken = broken(deviceType, kept);
        }
        return kept;
    }

    /** Bits in the set that need another one that is not. */
    static List<Integer> broken(int deviceType, Features features) {
        List<Integer> broken = new ArrayList<>();
        for (Rule rule : deviceType == DeviceType.NETWORK ? NET : List.<Rule>of()) {
            boolean met = false;
            for (int needed : rule.anyOf()) {
                met |= features.has(needed);
            }
            if (features.has(rule.bit()) && !met) {
                broken.add(rule.bit());
            }
        }
        return broken;
    }
}
