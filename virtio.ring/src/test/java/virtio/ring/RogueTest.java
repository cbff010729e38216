package virtio.ring;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot.State;

import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** Devices, transports and drivers that break their promises break themselves only. */
@Tag("unchecked")
@Timeout(60)
class RogueTest {
    @Test
    void featuresNotConfirmedAreNotUsed() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.statusHidden = DeviceStatus.FEATURES_OK;
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
            assertEquals(
                    "blk0 (loop:a): the device refuses the features bit 5, FLUSH, INDIRECT_DESC,"
                        + " EVENT_IDX, VERSION_1, RING_PACKED, IN_ORDER, RING_RESET: FEATURES_OK"
                        + " reads back as ACKNOWLEDGE|DRIVER",
                    refused.getMessage().replace("RO,", "bit 5,"));
            BusTest.assertNothingHeld(rig);
        }
    }

    @Test
    void aDeviceThatNeverReadsAsResetIsRefused() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.statusStuck = DeviceStatus.DRIVER_OK;
            BusTest.assertMessage(
                    "loop:a: device status reads DRIVER_OK, not 0, 1000 ms after the reset",
                    () -> rig.bus.attach("loop:a", null));
            BusTest.assertNothingHeld(rig);
        }
    }

    @Test
    void aConfigurationThatNeverSettlesIsAnError() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.restless = true;
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
            assertTrue(
                    refused.getMessage()
                            .startsWith(
                                    "blk0 (loop:a): the configuration changed during each of 100"
                                            + " attempts to read 8 bytes at offset 0"),
                    refused.getMessage());
            BusTest.assertNothingHeld(rig);
        }
    }

    @Test
    void aLegacyDeviceIsRefused() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.hiddenFeatures = Features.of(Feature.VERSION_1);
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
            assertTrue(
                    refused.getMessage().endsWith("without VERSION_1: a legacy device"),
                    refused.getMessage());
            BusTest.assertNothingHeld(rig);
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "open",
                "deviceType",
                "offered",
                "accept",
                "status",
                "configGeneration",
                "readConfig",
                "maxQueueSize",
                "mapToken",
                "startQueue",
                "listen",
                "close"
            })
    void aTransportThatThrowsIsAnErrorWithItsName(String method) throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.throwing = method;
            if (method.equals("close")) {
                rig.bus.attach("loop:a", null);
                rig.bus.detach("blk0");
            } else {
                VirtioException refused =
                        assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
                assertTrue(
                        refused.getMessage().contains("loop:a")
                                && refused.getMessage().contains("rogue " + method),
                        refused.getMessage());
            }
            assertEquals(List.of(), rig.bus.devices());
            BusTest.assertNothingHeld(rig);
            rig.loop.throwing = null;
            rig.bus.attach("loop:a", null);
            assertEquals(~1L, rig.ask(1));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"status", "configGeneration", "readConfig", "close", "notifyQueue"})
    void aTransportThatStartsToThrowIsLeftWhole(String method) throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.ask(1);
            rig.loop.throwing = method;
            CompletableFuture<Long> answer = rig.driver.last.ask(2);
            rig.backend.last.resize(1000);
            rig.bus.detach("blk0");
            BusTest.assertNothingHeld(rig);
            answer.exceptionally(e -> 0L).get(20, TimeUnit.SECONDS);
        }
    }

    @Test
    void aNotificationThatThrowsLosesTheDeviceOnly() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.loop.windows.get("a").settle();
            rig.loop.throwing = "notifyQueue";
            CompletableFuture<Long> answer = rig.driver.last.ask(2);
            rig.await(() -> rig.device().swaps() > 0, "lost and back");
            rig.loop.throwing = null;
            rig.driver.last.device.needsReset("once more, to be notified");
            assertEquals(~2L, answer.get(20, TimeUnit.SECONDS));
        }
    }

    @Test
    void aDiscoveryThatThrowsIsACandidateWithAReason() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.throwing = "discover";
            assertEquals(
                    "its discovery threw java.lang.IllegalStateException: rogue discover",
                    rig.bus.candidates().getFirst().unavailable());
        }
    }

    @Test
    void aDriverThatThrowsFromEverythingIsLetGo() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.driver.throwFromAll = new IllegalStateException("rogue driver");
            rig.backend.last.resize(1000);
            rig.await(() -> rig.driver.calls.contains("configChanged"), "told");
            rig.bus.export("echo:1000", "loop:b");
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.swap("blk0", "loop:b"));
            assertTrue(
                    refused.getMessage()
                            .contains("threw from compatible: java.lang.IllegalStateException"),
                    refused.getMessage());
            rig.unbindDriver();
            BusTest.assertNothingHeld(rig);
            assertEquals(State.WAITING, rig.device().state());
        }
    }

    @Test
    void aDriverLeavesInBoundedTimeWhileTheTransportHangs() throws Exception {
        try (Rig rig = Rig.complete(new Settings(20_000, 0, 10, 300))) {
            rig.bus.attach("loop:a", null);
            rig.loop.hanging = "status";
            rig.backend.last.resize(1000); // The status is read when the configuration changes.
            assertTrue(rig.loop.hung.await(20, TimeUnit.SECONDS));
            long before = System.nanoTime();
            rig.unbindDriver();
            long tookMillis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - before);
            assertTrue(tookMillis >= 250 && tookMillis < 10_000, tookMillis + " ms");
            assertEquals(1, rig.device().queues().size(), "still shown while it hangs");
            rig.loop.release.countDown();
            rig.await(State.WAITING);
            BusTest.assertNothingHeld(rig);
        }
    }

    @Test
    void anExporterIsWaitedForAsLongAsItsExportCloses() throws Exception {
        try (Rig rig = Rig.complete(new Settings(20_000, 0, 10, 300))) {
            rig.loop.hanging = "export's close";
            CompletableFuture<Void> unexport =
                    CompletableFuture.runAsync(
                            () -> assertDoesNotThrow(() -> rig.bus.unexport("loop:a")));
            assertTrue(rig.loop.hung.await(20, TimeUnit.SECONDS));
            long before = System.nanoTime();
            rig.unbindExporter();
            long tookMillis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - before);
            assertTrue(tookMillis >= 250 && tookMillis < 10_000, tookMillis + " ms");
            rig.loop.release.countDown();
            unexport.get(20, TimeUnit.SECONDS);
            assertEquals(0, rig.loop.exported.get());
        }
    }

    @Test
    void aTransportIsWaitedForAsLongAsItsDeviceIsDetached() throws Exception {
        try (Rig rig = Rig.complete(new Settings(20_000, 0, 10, 300))) {
            rig.bus.attach("loop:a", null);
            rig.loop.hanging = "close";
            CompletableFuture<Void> detach =
                    CompletableFuture.runAsync(
                            () -> assertDoesNotThrow(() -> rig.bus.detach("blk0")));
            assertTrue(rig.loop.hung.await(20, TimeUnit.SECONDS));
            long before = System.nanoTime();
            rig.unbindTransport();
            long tookMillis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - before);
            assertTrue(tookMillis >= 250 && tookMillis < 10_000, tookMillis + " ms");
            rig.loop.release.countDown();
            detach.get(20, TimeUnit.SECONDS);
            BusTest.assertNothingHeld(rig);
        }
    }

    @Test
    void askingForItselfFromAStepIsRefused() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.driver.onConfigChanged =
                    () -> {
                        VirtioException refused =
                                assertThrows(VirtioException.class, () -> rig.bus.detach("blk0"));
                        rig.driver.calls.add(refused.getMessage());
                    };
            rig.backend.last.resize(1000);
            rig.await(
                    () ->
                            rig.driver.calls.contains(
                                    "blk0: detach was asked for by a step of blk0 that it would"
                                            + " have to wait for"),
                    "refused");
            rig.driver.onConfigChanged = () -> {};
            rig.bus.detach("blk0");
        }
    }

    @Test
    void consumersWaitNoLongerThanTheLimitThoughTheTransportHangs() throws Exception {
        try (Rig rig = Rig.complete(new Settings(100, 0, 5))) {
            rig.bus.attach("loop:a", null);
            rig.backend.last.mute = true;
            CompletableFuture<Long> answer = rig.driver.last.ask(1);
            rig.loop.hanging = "open";
            rig.loop.windows.get("a").driver.vanish();
            ExecutionException failed =
                    assertThrows(ExecutionException.class, () -> answer.get(20, TimeUnit.SECONDS));
            assertEquals(
                    "blk0 is not back after 100 ms: loop:a vanished",
                    failed.getCause().getMessage());
            rig.await(State.ABANDONED);
            rig.backend.last.mute = false;
            rig.loop.hanging = null;
            rig.loop.release.countDown();
            rig.await(State.ACTIVE);
            assertEquals(~2L, rig.ask(2));
        }
    }
}
