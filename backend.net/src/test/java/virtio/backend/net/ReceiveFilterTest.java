package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.Features;
import virtio.api.net.NetConfig;
import virtio.api.net.NetControl;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;
import virtio.api.net.ReceiveMode;

import java.nio.ByteBuffer;
import java.util.HexFormat;

/** Which frames a card on a switch receives, as its driver has said by commands. */
class ReceiveFilterTest {
    private static final String MAC = "525400000001";
    private static final String OTHER = "020000000009";
    private static final String GROUP = "01005E000009";
    private static final String BROADCAST = "FFFFFFFFFFFF";

    private NetBackend card;
    private FakeQueue receive;
    private FakeQueue transmit;
    private FakeQueue control;

    @BeforeEach
    void open() throws Exception {
        Link itself =
                new Link() {
                    @Override
                    public void send(Port from, Sender sender) {
                        from.deliver(sender);
                    }

                    @Override
                    public void leave(Port port) {}
                };
        card = new NetBackend(NetSpec.parse("lan,mac=52:54:00:00:00:01"), itself, true);
        start();
    }

    private void start(int... without) {
        Features features = card.offered().without(NetFeature.HASH_REPORT).without(without);
        card.accepted(features);
        receive = new FakeQueue(card, 0);
        transmit = new FakeQueue(card, 1);
        control = new FakeQueue(card, 2);
    }

    private boolean command(int commandClass, int command, byte[] data) throws Exception {
        byte[] out = new byte[2 + data.length];
        out[0] = (byte) commandClass;
        out[1] = (byte) command;
        System.arraycopy(data, 0, out, 2, data.length);
        FakeQueue.Buffer buffer = control.add(out, 1);
        control.serve();
        assertEquals(1, buffer.written);
        return buffer.in[0] == NetControl.OK;
    }

    private void mode(ReceiveMode mode, boolean on) throws Exception {
        // The commands of the class have the numbers of their modes.
        assertTrue(command(NetControl.RX, mode.ordinal(), new byte[] {(byte) (on ? 1 : 0)}));
    }

    /** Whether a frame to an address, and with what follows there, is received. */
    private boolean passes(String to) throws Exception {
        byte[] packet = new byte[NetHeader.BYTES + 60];
        byte[] head = HexFormat.of().parseHex(to);
        System.arraycopy(head, 0, packet, NetHeader.BYTES, head.length);
        int before = receive.used.size();
        while (receive.available.isEmpty()) {
            receive.add(new byte[0], 1526);
        }
        transmit.add(packet, 0);
        transmit.serve();
        receive.serve();
        return receive.used.size() != before;
    }

    private static byte[] table(String... addresses) {
        ByteBuffer table = ByteBuffer.allocate(Integer.BYTES + 6 * addresses.length);
        table.put((byte) addresses.length).position(Integer.BYTES);
        for (String address : addresses) {
            table.put(HexFormat.of().parseHex(address));
        }
        return table.array();
    }

    private static byte[] tables(byte[] unicast, byte[] multicast) {
        return ByteBuffer.allocate(unicast.length + multicast.length)
                .put(unicast)
                .put(multicast)
                .array();
    }

    @Test
    @Tag("DEV-NET-068")
    @Tag("DEV-NET-069")
    @Tag("DEV-NET-070")
    @Tag("DEV-NET-071")
    @Tag("DEV-NET-072")
    @Tag("DEV-NET-073")
    void modesLetMoreThrough() throws Exception {
        assertTrue(passes(MAC) && passes(BROADCAST));
        assertFalse(passes(OTHER) || passes(GROUP));
        mode(ReceiveMode.ALL_MULTICAST, true);
        assertTrue(passes(GROUP) && !passes(OTHER));
        mode(ReceiveMode.ALL_UNICAST, true);
        assertTrue(passes(GROUP) && passes(OTHER));
        mode(ReceiveMode.ALL_MULTICAST, false);
        mode(ReceiveMode.ALL_UNICAST, false);
        assertFalse(passes(OTHER) || passes(GROUP));
        for (ReceiveMode less :
                new ReceiveMode[] {
                    ReceiveMode.NO_UNICAST, ReceiveMode.NO_MULTICAST, ReceiveMode.NO_BROADCAST
                }) {
            mode(less, true);
        }
        assertFalse(passes(MAC) || passes(BROADCAST));
        mode(ReceiveMode.PROMISCUOUS, true);
        assertTrue(passes(MAC) && passes(OTHER) && passes(GROUP) && passes(BROADCAST));
    }

    @Test
    @Tag("DEV-NET-074")
    @Tag("DEV-NET-075")
    @Tag("DEV-NET-076")
    @Tag("DEV-NET-077")
    @Tag("DEV-NET-078")
    @Tag("DEV-NET-079")
    @Tag("DEV-NET-080")
    void modesThatLetLessThroughAreStrongerThanThoseThatLetMore() throws Exception {
        mode(ReceiveMode.ALL_MULTICAST, true);
        mode(ReceiveMode.ALL_UNICAST, true);
        mode(ReceiveMode.NO_MULTICAST, true);
        assertTrue(!passes(GROUP) && passes(BROADCAST) && passes(OTHER));
        mode(ReceiveMode.NO_UNICAST, true);
        assertFalse(passes(MAC) || passes(OTHER));
        mode(ReceiveMode.NO_MULTICAST, false);
        mode(ReceiveMode.NO_BROADCAST, true);
        assertTrue(passes(GROUP) && !passes(BROADCAST));
    }

    @Test
    @Tag("DEV-NET-081")
    @Tag("DEV-NET-082")
    @Tag("DEV-NET-083")
    @Tag("DEV-NET-084")
    void addressesHoldFromTheAnswerToTheNextReset() throws Exception {
        byte[] tables = tables(table(OTHER), table(GROUP));
        assertTrue(command(NetControl.MAC, NetControl.MAC_TABLE_SET, tables));
        assertTrue(passes(MAC) && passes(OTHER) && passes(GROUP));
        assertFalse(passes("02000000000A") || passes("01005E00000A"));
        byte[] now = HexFormat.of().parseHex("02000000000A");
        assertTrue(command(NetControl.MAC, NetControl.MAC_ADDR_SET, now));
        byte[] mac = new byte[NetConfig.MAC_BYTES];
        card.readConfig(NetConfig.MAC, mac);
        assertArrayEquals(now, mac);
        assertTrue(passes("02000000000A") && !passes(MAC));
        start();
        card.readConfig(NetConfig.MAC, mac);
        assertArrayEquals(HexFormat.of().parseHex(MAC), mac);
        assertTrue(passes(MAC));
        assertFalse(passes(OTHER) || passes(GROUP) || passes("02000000000A"));
    }

    @Test
    @Tag("DEV-NET-085")
    @Tag("DEV-NET-086")
    void vlansAreFilteredWhereThatWasNegotiated() throws Exception {
        String tagged = MAC + OTHER + "81000123";
        assertFalse(passes(tagged));
        assertTrue(command(NetControl.VLAN, NetControl.VLAN_ADD, new byte[] {0x23, 1}));
        assertTrue(passes(tagged) && !passes(MAC + OTHER + "81000124"));
        // The priority is no part of the number.
        assertTrue(passes(MAC + OTHER + "8100E123"));
        assertTrue(command(NetControl.VLAN, NetControl.VLAN_DEL, new byte[] {0x23, 1}));
        assertFalse(passes(tagged));
        start(NetFeature.CTRL_VLAN);
        assertTrue(passes(tagged) && passes(MAC + OTHER + "81000FFF"));
    }

    @Test
    void whatIsNoCommandIsRefusedAndChangesNothing() throws Exception {
        assertFalse(command(NetControl.RX, 6, new byte[] {1}));
        assertFalse(command(NetControl.RX, 0, new byte[0]));
        assertFalse(command(NetControl.MAC, NetControl.MAC_ADDR_SET, new byte[5]));
        assertFalse(command(NetControl.MAC, NetControl.MAC_TABLE_SET, table(OTHER)));
        byte[] lying = tables(table(OTHER), table(GROUP));
        lying[3] = 0x7F;
        assertFalse(command(NetControl.MAC, NetControl.MAC_TABLE_SET, lying));
        assertFalse(command(NetControl.VLAN, NetControl.VLAN_ADD, new byte[] {0, 0x10}));
        assertFalse(command(99, 0, new byte[] {1}));
        assertTrue(passes(MAC));
        assertFalse(passes(OTHER) || passes(GROUP));
    }
}
