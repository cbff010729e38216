package virtio.device.net;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;
import virtio.api.net.ReceiveMode;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.BitSet;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * What consumers have set by commands, so that the next device can be told it again. Used with one
 * lock held by who has it.
 */
final class NetSettings {
    private static final int VLANS = 4096;

    private Set<ReceiveMode> modes = EnumSet.noneOf(ReceiveMode.class);
    private List<byte[]> unicast = List.of();
    private List<byte[]> multicast = List.of();
    private final BitSet vlans = new BitSet(VLANS);
    private byte[] address;
    private Features guestOffloads;

    /** Null where it is the device's own. */
    byte[] address() {
        return address;
    }

    /**
     * Tells a device all that was set.
     *
     * @param control null where there is none
     */
    void apply(ControlQueue control, NetLimits limits) throws VirtioException {
        if (address != null) {
            address(control, limits, address);
        }
        if (!modes.isEmpty()) {
            Set<ReceiveMode> wanted = modes;
            modes = EnumSet.noneOf(ReceiveMode.class);
            modes(control, limits, wanted);
        }
        if (!unicast.isEmpty() || !multicast.isEmpty()) {
            addresses(control, limits, unicast, multicast);
        }
        for (int vlan = vlans.nextSetBit(0); vlan >= 0; vlan = vlans.nextSetBit(vlan + 1)) {
            vlan(control, limits, vlan, true);
        }
        if (guestOffloads != null) {
            guestOffloads(control, limits, guestOffloads);
        }
    }

    void modes(ControlQueue control, NetLimits limits, Set<ReceiveMode> wanted)
            throws VirtioException {
        for (ReceiveMode mode : ReceiveMode.values()) {
            if (modes.contains(mode) != wanted.contains(mode)) {
                mode(control, limits, mode, wanted.contains(mode));
            }
        }
        modes = wanted.isEmpty() ? EnumSet.noneOf(ReceiveMode.class) : EnumSet.copyOf(wanted);
    }

    private static void mode(ControlQueue control, NetLimits limits, ReceiveMode mode, boolean on)
            throws VirtioException {
        boolean basic = mode.ordinal() <= ReceiveMode.ALL_MULTICAST.ordinal();
        need(limits, basic ? NetFeature.CTRL_RX : NetFeature.CTRL_RX_EXTRA);
        byte[] data = {(byte) (on ? 1 : 0)};
        control.command("receive mode " + mode, NetControl.RX, mode.ordinal(), data);
    }

    /**
     * Has the device deliver nothing more, whatever the modes are; they stay what they are for the
     * next device. False where it cannot.
     */
    boolean deafen(ControlQueue control, NetLimits limits) throws VirtioException {
        if (!limits.has(NetFeature.CTRL_RX_EXTRA) || !limits.has(NetFeature.CTRL_RX)) {
            return false;
        }
        mode(control, limits, ReceiveMode.NO_MULTICAST, true);
        mode(control, limits, ReceiveMode.NO_UNICAST, true);
        mode(control, limits, ReceiveMode.NO_BROADCAST, true);
        if (modes.contains(ReceiveMode.PROMISCUOUS)) {
            // It goes before the others (DEV-NET-070).
            mode(control, limits, ReceiveMode.PROMISCUOUS, false);
        }
        return true;
    }

    void addresses(
            ControlQueue control, NetLimits limits, List<byte[]> unicast, List<byte[]> multicast)
            throws VirtioException {
        need(limits, NetFeature.CTRL_RX);
        int bytes = NetConfig.MAC_BYTES * (unicast.size() + multicast.size());
        ByteBuffer data =
                ByteBuffer.allocate(2 * Integer.BYTES + bytes).order(ByteOrder.LITTLE_ENDIAN);
        put(data, unicast, false);
        put(data, multicast, true);
        control.command(
                "a filter of %d addresses".formatted(unicast.size() + multicast.size()),
                NetControl.MAC,
                NetControl.MAC_TABLE_SET,
                data.array());
        this.unicast = List.copyOf(unicast);
        this.multicast = List.copyOf(multicast);
    }

    private static void put(ByteBuffer data, List<byte[]> addresses, boolean multicast) {
        data.putInt(addresses.size());
        for (byte[] address : addresses) {
            checkAddress(address);
            if ((address[0] & 1) != 0 != multicast) {
                throw new IllegalArgumentException(
                        "%s is %s multicast address"
                                .formatted(NetLimits.text(address), multicast ? "no" : "a"));
            }
            data.put(address);
        }
    }

    void vlan(ControlQueue control, NetLimits limits, int vlan, boolean on) throws VirtioException {
        if (vlan < 0 || vlan >= VLANS) {
            throw new IllegalArgumentException(
                    "VLAN %d, limits are 0 and %d".formatted(vlan, VLANS - 1));
        }
        need(limits, NetFeature.CTRL_VLAN);
        byte[] data = {(byte) vlan, (byte) (vlan >>> 8)};
        control.command(
                "VLAN " + vlan,
                NetControl.VLAN,
                on ? NetControl.VLAN_ADD : NetControl.VLAN_DEL,
                data);
        vlans.set(vlan, on);
    }

    void address(ControlQueue control, NetLimits limits, byte[] wanted) throws VirtioException {
        checkAddress(wanted);
        if ((wanted[0] & 1) != 0) {
            throw new IllegalArgumentException(NetLimits.text(wanted) + " is a multicast address");
        }
        need(limits, NetFeature.CTRL_MAC_ADDR);
        control.command(
                "address " + NetLimits.text(wanted),
                NetControl.MAC,
                NetControl.MAC_ADDR_SET,
                wanted);
        address = wanted.clone();
    }

    void guestOffloads(ControlQueue control, NetLimits limits, Features wanted)
            throws VirtioException {
        need(limits, NetFeature.CTRL_GUEST_OFFLOADS);
        Features all =
                limits.features()
                        .and(
                                NetLimits.GUEST_SEGMENTATION.with(
                                        NetFeature.GUEST_CSUM, NetFeature.GUEST_ECN));
        Features excess = wanted.andNot(all);
        if (!excess.isEmpty()) {
            throw new IllegalArgumentException(
                    "offloads %s, negotiated are %s".formatted(excess, all));
        }
        ByteBuffer data = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        control.command(
                "guest offloads " + wanted,
                NetControl.GUEST_OFFLOADS,
                0,
                data.putLong(wanted.word(0)).array());
        guestOffloads = wanted;
    }

    private static void checkAddress(byte[] address) {
        if (address.length != NetConfig.MAC_BYTES) {
            throw new IllegalArgumentException(
                    "address %s of %d bytes, it has %d"
                            .formatted(
                                    Arrays.toString(address), address.length, NetConfig.MAC_BYTES));
        }
    }

    private static void need(NetLimits limits, int feature) throws VirtioException {
        if (!limits.has(feature)) {
            throw new VirtioException(
                    "the device cannot do that: %s is not negotiated"
                            .formatted(NetFeature.name(feature)));
        }
    }
}
