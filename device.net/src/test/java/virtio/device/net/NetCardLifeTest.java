package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import virtio.api.ConfigSpace;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.VirtioDevice;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;
import virtio.api.net.NetConfig;
import virtio.api.net.NetDevice;
import virtio.api.net.NetFeature;
import virtio.tck.CopyingMapOps;

import java.lang.reflect.Proxy;
import java.util.Arrays;

/** What a card keeps when it does not come to be, or does not come back. */
class NetCardLifeTest {
    private static final int SIZE = 16;
    private static final Features PLAIN = Features.of(Feature.VERSION_1, NetFeature.STATUS);
    private static final Features ANNOUNCED =
            PLAIN.with(NetFeature.CTRL_VQ, NetFeature.GUEST_ANNOUNCE);

    private final CopyingMapOps ops = new CopyingMapOps(8 << 20);
    private final DeviceMapping mapping = new DeviceMapping(ops, ops.token());
    private NetDevice card;

    /** Whether the control queue works. */
    private boolean obeys = true;

    private int status = NetConfig.S_LINK_UP;

    /** Whether the status can be read. */
    private boolean readable = true;

    private VirtioDriver.Bound probe(Features features) throws VirtioException {
        NetDriver driver =
                new NetDriver(
                        announced -> {
                            card = announced;
                            return () -> card = null;
                        });
        return driver.probe(device(features));
    }

    private static <T> T proxy(Class<T> type, java.lang.reflect.InvocationHandler handler) {
        return type.cast(
                Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
    }

    private VirtioDevice device(Features features) {
        return proxy(
                VirtioDevice.class,
                (self, method, args) ->
                        switch (method.getName()) {
                            case "name" -> "net0";
                            case "features" -> features;
                            case "config" -> config();
                            case "findQueues" ->
                                    Arrays.stream((QueueRequest[]) args[0])
                                            .map(wanted -> queue())
                                            .toArray(Virtqueue[]::new);
                            case "swapTimeoutMillis" -> 100L;
                            default -> null;
                        });
    }

    private ConfigSpace config() {
        return proxy(
                ConfigSpace.class,
                (self, method, args) -> {
                    if (!readable && (int) args[0] == NetConfig.STATUS) {
                        throw new VirtioException("the status cannot be read");
                    }
                    return (int) args[0] == NetConfig.STATUS ? status : 0;
                });
    }

    private Virtqueue queue() {
        return proxy(
                Virtqueue.class,
                (self, method, args) ->
                        switch (method.getName()) {
                            case "size", "maxElements", "free" -> SIZE;
                            case "mapping" -> mapping;
                            case "add" -> obeys && obey((ScatterList) args[0]);
                            case "addInMapped", "addOutMapped" -> args[3];
                            case "kick" -> true;
                            case "kickPrepare" -> false;
                            case "get" -> args == null ? (Object) 0L : 0;
                            case "broken" -> obeys ? null : "cut off";
                            default -> null;
                        });
    }

    /** Does a command, whatever it is. */
    private boolean obey(ScatterList command) {
        ops.device(command.offset(1), command.length(1)).fill((byte) 0);
        return true;
    }

    @Test
    void aCardThatCannotBeAnnouncedGivesAllMemoryBack() {
        NetDriver driver =
                new NetDriver(
                        announced -> {
                            throw new IllegalStateException("the bundle stops");
                        });
        assertThrows(IllegalStateException.class, () -> driver.probe(device(ANNOUNCED)));
        assertEquals(0, ops.live());
    }

    @Test
    void aNetworkThatIsNotToldIsNoReasonToFail() throws Exception {
        status |= NetConfig.S_ANNOUNCE;
        obeys = false;
        VirtioDriver.Bound bound = probe(ANNOUNCED);
        bound.freeze(0);
        bound.restore(device(ANNOUNCED));
        assertTrue(card.linkUp());
        bound.remove();
        assertEquals(0, ops.live());
    }

    @Test
    void aCardThatDoesNotComeBackIsFrozenAsBefore() throws Exception {
        VirtioDriver.Bound bound = probe(PLAIN);
        bound.freeze(0);
        int live = ops.live();
        readable = false;
        assertThrows(VirtioException.class, () -> bound.restore(device(ANNOUNCED)));
        assertEquals(live, ops.live());
        assertEquals(PLAIN, card.features());
        String said = assertThrows(VirtioException.class, () -> card.addVlan(1)).getMessage();
        assertEquals("net0 was frozen for more than 100 ms", said);
        readable = true;
        bound.restore(device(ANNOUNCED));
        assertEquals(ANNOUNCED, card.features());
        bound.remove();
        assertEquals(0, ops.live());
    }

    @Test
    void aDeviceThatCannotHaveTheAddressIsRefusedBeforeTheSwap() throws Exception {
        VirtioDriver.Bound bound = probe(PLAIN.with(NetFeature.CTRL_VQ, NetFeature.CTRL_MAC_ADDR));
        Features cannot = PLAIN.with(NetFeature.CTRL_VQ);
        bound.compatible(cannot, config());
        card.macAddress(new byte[] {2, 0, 0, 0, 0, 9});
        String said =
                assertThrows(VirtioException.class, () -> bound.compatible(cannot, config()))
                        .getMessage();
        assertTrue(said.contains("CTRL_MAC_ADDR is in use, the new device does not"), said);
        bound.remove();
    }
}
