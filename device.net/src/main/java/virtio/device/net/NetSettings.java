package virtio.device.net;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.Coalescing;
import virtio.api.net.HashConfig;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;
import virtio.api.net.ReceiveMode;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.BitSet;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * What consumers have set by commands, so that the next device can be told it again. Used with one
 * lock held by who has it.
 */
final class NetSettings {
    private static final int VLANS = 4096;
    private static final Features HASHING = Features.of(NetFeature.RSS, NetFeature.HASH_REPORT);

    private Set<ReceiveMode> modes = EnumSet.noneOf(ReceiveMode.class);
    private List<byte[]> unicast = List.of();
    private List<byte[]> multicast = List.of();
    private final BitSet vlans = new BitSet(VLANS);
    private byte[] address;
    private Features guestOffloads;
    private HashConfig hash;

    /** Null until something was set. */
    private Coalescing coalescing;

    /** What differs from it, by queue pair. */
    private final Map<Integer, Coalescing> coalescingOf = new TreeMap<>();

    /** Null where it is the device's own. */
    byte[] address() {
        return address;
    }

    HashConfig hash() {
        return hash;
    }

    Coalescing coalescing(int pair) {
        Coalescing all = coalescing == null ? Coalescing.NONE : coalescing;
        return coalescingOf.getOrDefault(pair, all);
    }

    /**
     * Refuses a device that cannot do what was set.
     *
     * @param before what the device of today can do
     * @throws VirtioException naming what is missing
     */
    void check(NetLimits before, NetLimits now) throws VirtioException {
        Features used = inUse(before);
        if (tellsAddress(now)) {
            used = used.with(NetFeature.CTRL_MAC_ADDR);
        }
        Features lost = used.andNot(now.features());
        if (!lost.isEmpty()) {
            throw new VirtioException(
                    "%s is in use, the new device does not offer it"
                            .formatted(NetFeature.name(lost.stream().findFirst().orElseThrow())));
        }
        if (hash != null) {
            try {
                HashCommand.check(hash, now);
            } catch (IllegalArgumentException e) {
                throw new VirtioException("hashes are in use: " + e.getMessage(), e);
            }
        }
    }

    /** Whether an address was set that is not the device's anyway. */
    private boolean tellsAddress(NetLimits limits) {
        return address != null && !Arrays.equals(address, limits.mac());
    }

    /** But for the address. */
    private Features inUse(NetLimits before) {
        Features used = Features.NONE;
        if (!modes.isEmpty() || !unicast.isEmpty() || !multicast.isEmpty()) {
            used = used.with(NetFeature.CTRL_RX);
        }
        if (modes.stream().anyMatch(mode -> mode.compareTo(ReceiveMode.ALL_MULTICAST) > 0)) {
            used = used.with(NetFeature.CTRL_RX_EXTRA);
        }
        if (!vlans.isEmpty()) {
            used = used.with(NetFeature.CTRL_VLAN);
        }
        if (guestOffloads != null) {
            used = used.with(NetFeature.CTRL_GUEST_OFFLOADS);
        }
        if (hash != null) {
            used = used.or(before.features().and(HASHING));
        }
        if (coalescing != null) {
            used = used.with(NetFeature.NOTF_COAL);
        }
        return coalescingOf.isEmpty() ? used : used.with(NetFeature.VQ_NOTF_COAL);
    }

    /**
     * Tells a device all that was set.
     *
     * @param control null where there is none
     */
    void apply(ControlQueue control, NetLimits limits) throws VirtioException {
        if (tellsAddress(limits)) {
            address(control, limits, address);
        }
        for (ReceiveMode mode : modes) {
            mode(control, limits, mode, true);
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
        spread(control, limits);
        if (hash != null) {
            hash(control, limits, hash);
        }
        if (coalescing != null) {
            coalesceAll(control, limits, coalescing);
        }
        for (Map.Entry<Integer, Coalescing> entry : coalescingOf.entrySet()) {
            entry.setValue(coalesced(control, limits, entry.getKey(), entry.getValue()));
        }
    }

    /** Has all pairs used, without a wish which one. */
    private static void spread(ControlQueue control, NetLimits limits) throws VirtioException {
        if (limits.has(NetFeature.MQ)) {
            byte[] count = {(byte) limits.pairs(), (byte) (limits.pairs() >>> 8)};
            control.command("VQ_PAIRS_SET", NetControl.MQ, NetControl.MQ_VQ_PAIRS_SET, count);
        } else if (limits.has(NetFeature.RSS)) {
            // There is no other way to have more than the first one.
            byte[] key = new byte[NetConfig.HASH_KEY_BYTES];
            new SecureRandom().nextBytes(key);
            HashCommand.send(control, limits, new HashConfig(limits.hashing().types(), key));
        }
    }

    void hash(ControlQueue control, NetLimits limits, HashConfig wanted) throws VirtioException {
        if (limits.features().and(HASHING).isEmpty()) {
            need(limits, wanted.table().isEmpty() ? NetFeature.HASH_REPORT : NetFeature.RSS);
        }
        if (!wanted.table().isEmpty()) {
            need(limits, NetFeature.RSS);
        }
        HashCommand.check(wanted, limits);
        HashCommand.send(control, limits, wanted);
        boolean off = wanted.types().isEmpty();
        if (off) {
            // The last command says how packets are spread (5.1.6.5.5).
            spread(control, limits);
        }
        hash = off ? null : wanted;
    }

    void coalescing(ControlQueue control, NetLimits limits, Coalescing wanted)
            throws VirtioException {
        coalesceAll(control, limits, wanted);
        coalescing = wanted;
        coalescingOf.clear();
    }

    private static void coalesceAll(ControlQueue control, NetLimits limits, Coalescing wanted)
            throws VirtioException {
        need(limits, NetFeature.NOTF_COAL);
        control.command(
                wanted.toString(),
                NetControl.NOTF_COAL,
                NetControl.NOTF_COAL_RX_SET,
                numbers(2).putInt(wanted.receivePackets()).putInt(wanted.receiveMicros()).array());
        control.command(
                wanted.toString(),
                NetControl.NOTF_COAL,
                NetControl.NOTF_COAL_TX_SET,
                numbers(2).putInt(wanted.sendPackets()).putInt(wanted.sendMicros()).array());
    }

    void coalescing(ControlQueue control, NetLimits limits, int pair, Coalescing wanted)
            throws VirtioException {
        coalescingOf.put(pair, coalesced(control, limits, pair, wanted));
    }

    /** Sets it, and asks the device for what it has made of it. */
    private static Coalescing coalesced(
            ControlQueue control, NetLimits limits, int pair, Coalescing wanted)
            throws VirtioException {
        need(limits, NetFeature.VQ_NOTF_COAL);
        ByteBuffer receive =
                queue(control, 2 * pair, wanted.receivePackets(), wanted.receiveMicros());
        ByteBuffer send = queue(control, 2 * pair + 1, wanted.sendPackets(), wanted.sendMicros());
        return new Coalescing(
                unsigned(receive.getInt()),
                unsigned(receive.getInt()),
                unsigned(send.getInt()),
                unsigned(send.getInt()));
    }

    private static ByteBuffer queue(ControlQueue control, int vq, int packets, int micros)
            throws VirtioException {
        String what = "coalescing %d packets or %d us of queue %d".formatted(packets, micros, vq);
        control.command(
                what,
                NetControl.NOTF_COAL,
                NetControl.NOTF_COAL_VQ_SET,
                numbers(3).putInt(vq).putInt(packets).putInt(micros).array());
        byte[] answer =
                control.ask(
                        "to say the coalescing of queue " + vq,
                        NetControl.NOTF_COAL,
                        NetControl.NOTF_COAL_VQ_GET,
                        numbers(1).putInt(vq).array(),
                        2 * Integer.BYTES);
        return ByteBuffer.wrap(answer).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static int unsigned(int number) {
        return number < 0 ? Integer.MAX_VALUE : number;
    }

    private static ByteBuffer numbers(int count) {
        return ByteBuffer.allocate(count * Integer.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    }

    Set<ReceiveMode> modes() {
        return Set.copyOf(modes);
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

    Features guestOffloads(NetLimits limits) {
        return guestOffloads == null ? limits.guestOffloads() : guestOffloads;
    }

    void guestOffloads(ControlQueue control, NetLimits limits, Features wanted)
            throws VirtioException {
        need(limits, NetFeature.CTRL_GUEST_OFFLOADS);
        Features all = limits.guestOffloads();
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

    static void need(NetLimits limits, int feature) throws VirtioException {
        if (!limits.has(feature)) {
            throw new VirtioException(
                    "the device cannot do that: %s is not negotiated"
                            .formatted(NetFeature.name(feature)));
        }
    }
}
