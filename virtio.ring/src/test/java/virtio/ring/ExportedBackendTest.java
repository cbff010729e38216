package virtio.ring;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;
import virtio.ring.queue.DeviceEnd;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;

/** A backend as the device end of a transport sees it. */
@Tag("unchecked")
@Timeout(60)
class ExportedBackendTest {
    private final EchoBackend backend = new EchoBackend(1000, new AtomicInteger());

    @Test
    @Tag("DEV-CORE-004")
    @Tag("DEV-CORE-006")
    @Tag("DEV-CORE-022")
    void offersWhatBackendAndRingCan() throws Exception {
        ExportedBackend device = new ExportedBackend("echo:1000", backend);
        assertEquals(
                Features.of(
                        5,
                        9,
                        Feature.INDIRECT_DESC,
                        Feature.EVENT_IDX,
                        Feature.VERSION_1,
                        Feature.RING_PACKED,
                        Feature.IN_ORDER,
                        Feature.RING_RESET),
                device.offered());
        // Whatever a backend claims: of the bits that are no device type's, what the ring has.
        backend.offered = Features.of(IntStream.range(0, 192).toArray());
        Features offered = new ExportedBackend("echo:1000", backend).offered();
        for (int bit = 0; bit < 192; bit++) {
            boolean ofDeviceType = bit < 24 || bit >= 50 && bit < 128;
            assertEquals(
                    ofDeviceType || DeviceEnd.FEATURES.has(bit), offered.has(bit), "bit " + bit);
        }
    }

    @Test
    @Tag("DEV-CORE-005")
    @Tag("DEV-CORE-023")
    void acceptsSubsetsOnly() throws Exception {
        ExportedBackend device = new ExportedBackend("echo:1000", backend);
        assertTrue(device.accept(device.offered()));
        assertTrue(device.accept(Features.of(Feature.VERSION_1)));
        assertTrue(device.accept(Features.of(9, Feature.VERSION_1, Feature.ACCESS_PLATFORM)));
        assertEquals(Features.of(9, Feature.VERSION_1), backend.accepted);
        assertFalse(device.accept(Features.of(9)), "without VERSION_1");
        assertFalse(device.accept(Features.of(6, Feature.VERSION_1)), "not offered");
        assertFalse(device.accept(Features.of(45, Feature.VERSION_1)));
        assertFalse(device.accept(Features.of(100, Feature.VERSION_1)));
    }

    @Test
    void configurationBeyondTheSizeReadsAsZero() throws Exception {
        ExportedDevice device = new ExportedBackend("echo:1000", backend);
        byte[] bytes = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
        device.readConfig(0, bytes);
        assertArrayEquals(new byte[] {(byte) 0xE8, 3, 0, 0, 0, 0, 0, 0, 0, 0}, bytes);
        device.readConfig(8, bytes);
        assertArrayEquals(new byte[10], bytes);
        device.readConfig(-1, bytes);
        device.writeConfig(Integer.MAX_VALUE, bytes);
        device.writeConfig(4, bytes);
    }

    @Test
    void generationChangesWithTheConfiguration() throws Exception {
        ExportedDevice device = new ExportedBackend("echo:1000", backend);
        int before = device.configGeneration();
        backend.resize(1);
        assertNotEquals(before, device.configGeneration());
    }

    @Test
    void queuesAreStartedInOrderOnly() throws Exception {
        ExportedDevice device = new ExportedBackend("echo:1000", backend);
        QueueLayout layout = new QueueLayout(16, 4096, 8192, 12288);
        BusTest.assertMessage(
                "echo:1000: queue 0 was started before features were accepted",
                () -> device.startQueue(0, layout, null, null));
        device.accept(device.offered());
        BusTest.assertMessage(
                "blk: there is no queue 1, the device has 1 queues",
                () -> device.startQueue(1, layout, null, null));
        QueueLayout huge = new QueueLayout(65536, 4096, 8192, 12288);
        assertThrows(VirtioException.class, () -> device.startQueue(0, huge, null, null));
        assertEquals(0, device.stopQueue(0), "not started");
        assertEquals(0, device.stopQueue(7));
        device.queueNotified(0);
        device.queueNotified(-1);
        device.queueNotified(7);
        device.reset();
    }

    @Test
    void aBackendThatFailsBreaksItsQueueOnly() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            LoopTransport.Window window = rig.loop.windows.get("a");
            rig.backend.last.failure = new IllegalStateException("broken disk");
            CompletableFuture<Long> answer = rig.driver.last.ask(1);
            rig.await(() -> window.broken != null, "broken");
            assertTrue(window.broken.contains("broken disk"), window.broken);
            rig.backend.last.failure = null;
            assertEquals(~1L, answer.get(20, TimeUnit.SECONDS), "works again after the reset");
        }
    }

    @Test
    @Tag("DEV-CORE-009")
    @Tag("DEV-CORE-011")
    void resetReturnsWhenTheBackendHasLeftTheQueue() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            ExportedDevice device = rig.loop.windows.get("a").device;
            rig.loop.windows.get("a").settle();
            EchoBackend served = rig.backend.last;
            served.hold();
            CompletableFuture<Long> answer = rig.driver.last.ask(1);
            rig.await(() -> served.inside, "in the backend");
            CompletableFuture<Void> reset = CompletableFuture.runAsync(device::reset);
            CompletableFuture<Integer> stop =
                    CompletableFuture.supplyAsync(() -> device.stopQueue(0));
            assertThrows(TimeoutException.class, () -> reset.get(50, TimeUnit.MILLISECONDS));
            assertTrue(served.inside);
            served.letGo();
            reset.get(20, TimeUnit.SECONDS);
            stop.get(20, TimeUnit.SECONDS);
            assertEquals(0, served.queuesLive);
            assertFalse(served.inside);
            device.queueNotified(0);
            rig.driver.last.device.needsReset("to see the answer");
            assertEquals(~1L, answer.get(20, TimeUnit.SECONDS));
        }
    }

    @Test
    @Tag("DEV-CORE-011")
    void resetReturnsHoweverBusyTheDriverIs() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            EchoDriver.Echo echo = rig.driver.last;
            EchoBackend served = rig.backend.last;
            AtomicInteger answered = new AtomicInteger();
            served.onServed =
                    () -> {
                        echo.poll();
                        echo.ask(answered.incrementAndGet());
                    };
            echo.ask(0);
            rig.await(() -> answered.get() > 1000, "busy without end");
            CompletableFuture.runAsync(rig.loop.windows.get("a").device::reset)
                    .get(20, TimeUnit.SECONDS);
            assertEquals(0, served.queuesLive);
            served.onServed = () -> {};
        }
    }
}
