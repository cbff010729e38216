package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.net.NetControl;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.ReceiveMode;
import virtio.backend.net.SwitchProvider;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Path;
import java.util.Set;

/** What consumers have set goes with the card, or the card does not go. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class KeptSettingsTest {
    private static final byte[] OTHER = {2, 0, 0, 0, 0, 9};

    @TempDir Path folder;
    private Rig rig;

    @BeforeEach
    void open() {
        rig = new Rig(folder);
        rig.core.bindBackend(
                new BackendProvider() {
                    @Override
                    public String name() {
                        return "refusing";
                    }

                    @Override
                    public Backend open(String spec) throws VirtioException {
                        return refusing(new SwitchProvider().open(spec));
                    }
                });
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        rig.close();
    }

    /** A card of a switch that refuses every command. */
    private static Backend refusing(Backend card) {
        return (Backend)
                Proxy.newProxyInstance(
                        KeptSettingsTest.class.getClassLoader(),
                        new Class<?>[] {Backend.class},
                        (self, method, args) -> {
                            if (method.getName().equals("process")
                                    && ((DeviceQueue) args[0]).index() == 2) {
                                DeviceQueue queue = (DeviceQueue) args[0];
                                Chain chain = queue.newChain();
                                while (queue.next(chain)) {
                                    chain.write8(0, NetControl.ERR);
                                    queue.complete(chain, 1);
                                }
                                return null;
                            }
                            try {
                                return method.invoke(card, args);
                            } catch (InvocationTargetException e) {
                                throw e.getCause();
                            }
                        });
    }

    private void swap(String backend) throws VirtioException {
        String address = rig.address("mmio");
        rig.core.bus().export(backend, address);
        rig.core.bus().swap("net0", address);
    }

    @Test
    void receiveModesAreKeptWhenAnotherDeviceRefusesThem() throws Exception {
        NetDevice card = rig.card("mmio", "switch:lan,mac=52:54:00:00:00:01", "net0");
        NetDevice sender = rig.card("mmio", "switch:lan", "net1");
        card.receiveModes(Set.of(ReceiveMode.PROMISCUOUS));
        String said =
                assertThrows(
                                VirtioException.class,
                                () -> swap("refusing:lan,mac=52:54:00:00:00:01"))
                        .getMessage();
        assertTrue(said.contains("the device refuses receive mode PROMISCUOUS"), said);
        try (NetQueue from = sender.openQueue(0);
                NetQueue to = card.openQueue(0)) {
            byte[] frame = Rig.frame(60, OTHER, sender.macAddress(), 1);
            Rig.send(from, Rig.fill(from, frame));
            Rig.expect(frame, to);
        }
    }

    @Test
    void anAddressThatADeviceHasAnywayNeedNotBeSet() throws Exception {
        NetDevice card = rig.card("mmio", "loopback:,mac=52:54:00:00:00:01", "net0");
        card.macAddress(OTHER);
        swap("loopback:,mac=02:00:00:00:00:09,without=CTRL_MAC_ADDR");
        assertArrayEquals(OTHER, card.macAddress());
        // Back to where it is set again.
        swap("loopback:,mac=52:54:00:00:00:01");
        assertArrayEquals(OTHER, card.macAddress());
    }
}
