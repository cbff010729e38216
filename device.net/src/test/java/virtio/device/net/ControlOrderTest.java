package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.net.Coalescing;
import virtio.api.net.NetControl;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;
import virtio.backend.net.LoopbackProvider;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/** What the driver does before a card has answered, and when it has refused. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ControlOrderTest {
    private static final int TRANSMIT2 = 3;

    @TempDir Path folder;
    private Rig rig;

    /** Cards that were told how many pairs are in use. */
    private final AtomicInteger told = new AtomicInteger();

    /** How many. */
    private volatile int pairs;

    /** Packets that came on the second transmit queue before that. */
    private final AtomicInteger early = new AtomicInteger();

    private final AtomicInteger late = new AtomicInteger();

    /** Says no to who asks for delays, and numbers all the same. */
    private volatile boolean refusing;

    @BeforeEach
    void open() {
        rig = new Rig(folder);
        rig.core.bindBackend(
                new BackendProvider() {
                    @Override
                    public String name() {
                        return "slow";
                    }

                    @Override
                    public Backend open(String spec) throws VirtioException {
                        return slow(new LoopbackProvider().open(spec));
                    }
                });
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        rig.close();
    }

    /** A card that takes its time for commands and does none of them. */
    private Backend slow(Backend card) {
        AtomicBoolean set = new AtomicBoolean();
        return (Backend)
                Proxy.newProxyInstance(
                        getClass().getClassLoader(),
                        new Class<?>[] {Backend.class},
                        (self, method, args) -> {
                            if (method.getName().equals("accepted")) {
                                set.set(false);
                            }
                            if (method.getName().equals("process")) {
                                DeviceQueue queue = (DeviceQueue) args[0];
                                if (queue.index() == card.queueCount() - 1) {
                                    command(queue, set);
                                    return null;
                                }
                                if (queue.index() == TRANSMIT2) {
                                    drop(queue, set.get() ? late : early);
                                    return null;
                                }
                            }
                            try {
                                return method.invoke(card, args);
                            } catch (InvocationTargetException e) {
                                throw e.getCause();
                            }
                        });
    }

    private static void drop(DeviceQueue queue, AtomicInteger count) throws VirtioException {
        Chain chain = queue.newChain();
        while (queue.next(chain)) {
            count.incrementAndGet();
            queue.complete(chain, 0);
        }
    }

    private void command(DeviceQueue queue, AtomicBoolean set) throws Exception {
        Chain chain = queue.newChain();
        while (queue.next(chain)) {
            int kind = chain.read8(0);
            boolean refused = refusing && chain.read8(1) == NetControl.NOTF_COAL_VQ_GET;
            if (kind == NetControl.MQ) {
                Thread.sleep(50);
                pairs = chain.read8(2) | chain.read8(3) << 8;
                told.incrementAndGet();
                set.set(true);
            }
            long writable = chain.writableBytes();
            chain.fill(0, writable);
            if (writable > 1) {
                chain.write8(0, 77);
            }
            chain.write8(writable - 1, refused ? NetControl.ERR : NetControl.OK);
            queue.complete(chain, writable);
        }
    }

    /** Over swaps, while a consumer sends on the second pair all the time. */
    @Test
    @Tag("DRV-NET-078")
    void onlyTheFirstPairSendsBeforeTheOthersAreSwitchedOn() throws Exception {
        String here = rig.address("mmio");
        String there = rig.address("mmio");
        for (String address : List.of(here, there)) {
            rig.core.bus().export("slow:,pairs=2,mac=52:54:00:00:00:01", address);
        }
        rig.core.bus().attach(here, "net0");
        NetDevice card = rig.cards.get("net0");
        AtomicBoolean stop = new AtomicBoolean();
        try (NetQueue queue = card.openQueue(1)) {
            Thread sender = Thread.ofPlatform().start(() -> send(card, queue, stop));
            for (int swap = 0; swap < 6; swap++) {
                int before = late.get();
                while (late.get() < before + 100) {
                    Thread.sleep(1);
                }
                rig.core.bus().swap("net0", swap % 2 == 0 ? there : here);
            }
            stop.set(true);
            sender.join();
        }
        assertEquals(7, told.get());
        assertEquals(0, early.get());
    }

    private static void send(NetDevice card, NetQueue queue, AtomicBoolean stop) {
        byte[] frame = Rig.frame(60, card.macAddress(), card.macAddress(), 1);
        PacketBuffer[] one = new PacketBuffer[1];
        while (!stop.get()) {
            if (one[0] == null && queue.allocate(one) == 1) {
                one[0].frame(PacketBuffer.HEADROOM, frame.length);
            }
            if (one[0] != null && queue.send(one, 1) == 1) {
                one[0] = null;
            }
        }
        if (one[0] != null) {
            queue.free(one, 1);
        }
    }

    /** The driver has made queues for two. */
    @Test
    @Tag("DRV-NET-076")
    void aCardWithMorePairsIsToldHowManyThereAre() throws Exception {
        String here = rig.address("mmio");
        String there = rig.address("mmio");
        rig.core.bus().export("slow:,pairs=2,mac=52:54:00:00:00:01", here);
        rig.core.bus().export("slow:,pairs=4,mac=52:54:00:00:00:01", there);
        rig.core.bus().attach(here, "net0");
        rig.core.bus().swap("net0", there);
        assertEquals(2, told.get());
        assertEquals(2, pairs);
    }

    @Test
    @Tag("DRV-NET-092")
    void numbersThatComeWithARefusalMeanNothing() throws Exception {
        NetDevice card = rig.card("mmio", "slow:,pairs=2", "net0");
        card.coalescing(1, new Coalescing(1, 2, 3, 4));
        Coalescing set = card.coalescing(1);
        assertEquals(new Coalescing(77, 0, 77, 0), set, "as the card says");
        refusing = true;
        String said =
                assertThrows(
                                VirtioException.class,
                                () -> card.coalescing(1, new Coalescing(5, 6, 7, 8)))
                        .getMessage();
        assertTrue(said.contains("the device refuses"), said);
        assertEquals(set, card.coalescing(1));
    }
}
