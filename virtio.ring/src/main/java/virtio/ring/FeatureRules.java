package virtio.ring;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.net.NetFeature;

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
                    new Rule(NetFeature.GUEST_TSO4, NetFeature.GUEST_CSUM),
                    new Rule(NetFeature.GUEST_TSO6, NetFeature.GUEST_CSUM),
                    new Rule(NetFeature.GUEST_ECN, NetFeature.GUEST_TSO4, NetFeature.GUEST_TSO6),
                    new Rule(NetFeature.GUEST_UFO, NetFeature.GUEST_CSUM),
                    new Rule(NetFeature.GUEST_USO4, NetFeature.GUEST_CSUM),
                    new Rule(NetFeature.GUEST_USO6, NetFeature.GUEST_CSUM),
                    new Rule(NetFeature.HOST_TSO4, NetFeature.CSUM),
                    new Rule(NetFeature.HOST_TSO6, NetFeature.CSUM),
                    new Rule(NetFeature.HOST_ECN, NetFeature.HOST_TSO4, NetFeature.HOST_TSO6),
                    new Rule(NetFeature.HOST_UFO, NetFeature.CSUM),
                    new Rule(NetFeature.HOST_USO, NetFeature.CSUM),
                    new Rule(NetFeature.CTRL_RX, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.CTRL_VLAN, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.GUEST_ANNOUNCE, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.MQ, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.CTRL_MAC_ADDR, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.NOTF_COAL, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.RSC_EXT, NetFeature.HOST_TSO4, NetFeature.HOST_TSO6),
                    new Rule(NetFeature.RSS, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.VQ_NOTF_COAL, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.HASH_TUNNEL, NetFeature.CTRL_VQ),
                    new Rule(NetFeature.HASH_TUNNEL, NetFeature.RSS, NetFeature.HASH_REPORT),
                    new Rule(NetFeature.RSS_CONTEXT, NetFeature.RSS),
                    new Rule(NetFeature.GUEST_UDP_TUNNEL_GSO, NetFeature.GUEST_TSO4),
                    new Rule(NetFeature.GUEST_UDP_TUNNEL_GSO, NetFeature.GUEST_TSO6),
                    new Rule(NetFeature.GUEST_UDP_TUNNEL_GSO, NetFeature.GUEST_USO4),
                    new Rule(NetFeature.GUEST_UDP_TUNNEL_GSO, NetFeature.GUEST_USO6),
                    new Rule(NetFeature.GUEST_UDP_TUNNEL_GSO_CSUM, NetFeature.GUEST_UDP_TUNNEL_GSO),
                    new Rule(NetFeature.HOST_UDP_TUNNEL_GSO, NetFeature.HOST_TSO4),
                    new Rule(NetFeature.HOST_UDP_TUNNEL_GSO, NetFeature.HOST_TSO6),
                    new Rule(NetFeature.HOST_UDP_TUNNEL_GSO, NetFeature.HOST_USO),
                    new Rule(NetFeature.HOST_UDP_TUNNEL_GSO_CSUM, NetFeature.HOST_UDP_TUNNEL_GSO));

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
