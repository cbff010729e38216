package virtio.ring;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot.State;
import virtio.api.status.SwapResult;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/** A device moves below a driver, is lost, found again or not. */
@Tag("unchecked")
@Timeout(60)
class SwapTest {
    private static Rig withTwoPaths() throws VirtioException {
        return withTwoPaths(new Settings(Rig.LIMIT_SECONDS * 1000, 1000, 10));
    }

    private static Rig withTwoPaths(Settings settings) throws VirtioException {
        Rig rig = Rig.complete(settings);
        rig.bus.attach("loop:a", null);
        rig.bus.export("echo:1000", "loop:b");
        return rig;
    }

    private static EchoBackend mute(Rig rig) {
        rig.backend.last.mute = true;
        return rig.backend.last;
    }

    @Test
    void movesAndResubmitsWhatWasInFlight() throws Exception {
        try (Rig rig = Rig.complete(new Settings(20_000, 0, 10))) {
            EchoBackend first = rig.backend.last;
            rig.bus.attach("loop:a", null);
            rig.bus.export("echo:1000", "loop:b");
            EchoDriver.Echo echo = rig.driver.last;
            first.mute = true;
            List<CompletableFuture<Long>> answers = new ArrayList<>();
            for (long value = 0; value < 5; value++) {
                answers.add(echo.ask(value));
            }
            SwapResult result = rig.bus.swap("blk0", "loop:b");
            assertEquals("loop:a", result.from());
            assertEquals("loop:b", result.to());
            assertTrue(result.pauseNanos() > 0);
            for (int value = 0; value < 5; value++) {
                assertEquals(~value, answers.get(value).get(20, TimeUnit.SECONDS));
            }
            assertEquals(List.of("probe", "compatible", "freeze 0", "restore"), rig.driver.calls);
            assertEquals(echo, rig.driver.last);
            assertEquals("loop:b", rig.device().address());
            assertEquals(State.ACTIVE, rig.device().state());
            assertEquals(1, rig.device().swaps());
            assertEquals(1, rig.loop.open.get(), "the old transport is closed");
            assertEquals(0, first.queuesLive, "the old device is reset");
            rig.bus.detach("blk0");
            BusTest.assertNothingHeld(rig);
        }
    }

    @Test
    void aChangeDuringASwapIsToldWhicheverDeviceReportedFirst() throws Exception {
        try (Rig rig = Rig.complete(new Settings(20_000, 1000, 10))) {
            EchoBackend first = mute(rig);
            rig.bus.attach("loop:a", null);
            rig.bus.export("echo:1000", "loop:b");
            EchoBackend second = rig.backend.last;
            rig.driver.last.ask(1);
            CompletableFuture<Void> swap =
                    CompletableFuture.runAsync(
                            () -> assertDoesNotThrow(() -> rig.bus.swap("blk0", "loop:b")));
            // It waits for what the muted device does not answer.
            rig.await(() -> rig.driver.calls.contains("freeze 1000"), "freezing");
            first.resize(1000);
            second.resize(1000);
            swap.get(20, TimeUnit.SECONDS);
            rig.await(() -> rig.driver.calls.contains("configChanged"), "told");
        }
    }

    @Test
    void losesNothingUnderLoad() throws Exception {
        try (Rig rig = withTwoPaths()) {
            EchoDriver.Echo echo = rig.driver.last;
            AtomicBoolean stop = new AtomicBoolean();
            AtomicLong answered = new AtomicLong();
            CompletableFuture<Void> load =
                    CompletableFuture.runAsync(
                            () -> {
                                while (!stop.get()) {
                                    long value = answered.get();
                                    CompletableFuture<Long> answer = echo.ask(value);
                                    assertEquals(
                                            ~value, answer.orTimeout(20, TimeUnit.SECONDS).join());
                                    answered.incrementAndGet();
                                }
                            });
            for (int i = 0; i < 20; i++) {
                long before = answered.get();
                rig.await(() -> answered.get() > before, "going on");
                rig.bus.swap("blk0", i % 2 == 0 ? "loop:b" : "loop:a");
            }
            stop.set(true);
            load.get(20, TimeUnit.SECONDS);
            assertEquals(20, rig.device().swaps());
        }
    }

    @Test
    void anotherDeviceIsRefusedBeforeAnythingStops() throws Exception {
        try (Rig rig = withTwoPaths()) {
            rig.bus.export("echo:7", "loop:c");
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.swap("blk0", "loop:c"));
            assertEquals(
                    "blk0 is not moved to loop:c: capacity is 7, was 1000; loop:a serves on",
                    refused.getMessage());
            assertEquals(List.of("probe", "compatible"), rig.driver.calls);
            assertEquals(~5L, rig.ask(5));
            assertEquals(1, rig.loop.open.get());
            assertEquals("loop:a", rig.device().address());
        }
    }

    @Test
    void anAddressWithNothingIsRefused() throws Exception {
        try (Rig rig = withTwoPaths()) {
            BusTest.assertMessage(
                    "loop:x: nothing is exported there", () -> rig.bus.swap("blk0", "loop:x"));
            BusTest.assertMessage(
                    "no transport y is here (here: loop)", () -> rig.bus.swap("blk0", "y:x"));
            assertEquals(~5L, rig.ask(5));
        }
    }

    @Test
    void failedRestoreGoesBackToTheOldOne() throws Exception {
        try (Rig rig = withTwoPaths()) {
            rig.driver.refuseRestoreOnce = new VirtioException("no such id");
            BusTest.assertMessage(
                    "blk0 is not moved to loop:b: no such id; loop:a serves on",
                    () -> rig.bus.swap("blk0", "loop:b"));
            assertEquals(
                    List.of("probe", "compatible", "freeze 1000", "restore", "restore"),
                    rig.driver.calls);
            assertEquals(State.ACTIVE, rig.device().state());
            assertEquals(~5L, rig.ask(5));
            assertEquals(1, rig.loop.open.get());
            assertFalse(rig.backend.last.accepted == null);
        }
    }

    @Test
    void noWayBackIsSaidAndTheOldOneIsLookedFor() throws Exception {
        try (Rig rig = withTwoPaths()) {
            rig.driver.refuseRestore = new VirtioException("no such id");
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.swap("blk0", "loop:b"));
            assertEquals(
                    "blk0 is not moved to loop:b: no such id; loop:a does not come back either:"
                            + " no such id",
                    refused.getMessage());
            rig.driver.refuseRestore = null;
            rig.await(State.ACTIVE);
            assertEquals("loop:a", rig.device().address());
            assertEquals(~5L, rig.ask(5));
        }
    }

    @Test
    void theSameAddressIsOpenedAnew() throws Exception {
        try (Rig rig = withTwoPaths()) {
            rig.bus.swap("blk0", "loop:a");
            assertEquals(~5L, rig.ask(5));
            assertEquals(1, rig.device().swaps());
        }
    }

    @Test
    void aVanishedDeviceComesBack() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            EchoBackend backend = mute(rig);
            CompletableFuture<Long> answer = rig.driver.last.ask(9);
            // It does not look at what it has left, unless it is notified again.
            backend.mute = false;
            rig.loop.windows.get("a").driver.vanish();
            assertEquals(~9L, answer.get(20, TimeUnit.SECONDS));
            rig.await(() -> rig.device().swaps() == 1, "back");
            rig.await(State.ACTIVE);
            assertEquals(List.of("probe", "freeze 0", "compatible", "restore"), rig.driver.calls);
        }
    }

    @Test
    void aDriverThatNeedsAResetGetsOne() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.driver.last.device.needsReset("a test says so");
            rig.await(() -> rig.device().swaps() == 1, "reset");
            assertEquals(~1L, rig.ask(1));
        }
    }

    @Test
    void aDeviceThatNeedsAResetGetsOne() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            // The backend fails, its queue breaks, the transport says DEVICE_NEEDS_RESET.
            rig.backend.last.failure = new IllegalStateException("broken disk");
            CompletableFuture<Long> answer = rig.driver.last.ask(3);
            rig.await(() -> rig.device().swaps() > 0, "reset");
            rig.backend.last.failure = null;
            assertEquals(~3L, answer.get(20, TimeUnit.SECONDS));
        }
    }

    @Test
    void aTransportThatLeavesIsDrainedAndReset() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.ask(1);
            rig.unbindTransport();
            assertEquals(0, rig.loop.open.get());
            assertEquals(0, rig.loop.ops.live.get());
            assertEquals(State.FROZEN, rig.device().state());
            assertEquals("no transport loop is here", rig.device().reason());
            CompletableFuture<Long> waiting = rig.driver.last.ask(2);
            rig.bindTransport();
            assertEquals(~2L, waiting.get(20, TimeUnit.SECONDS));
            rig.unbindMapOps();
            assertEquals(State.FROZEN, rig.device().state());
            assertTrue(rig.device().reason().startsWith("transport loop is refused"));
            rig.bindMapOps();
            rig.await(State.ACTIVE);
            assertEquals(2, rig.device().swaps());
        }
    }

    @Test
    void whoIsLostTooLongIsAbandonedAndStillComesBack() throws Exception {
        try (Rig rig = Rig.complete(new Settings(500, 0, 5))) {
            rig.bus.attach("loop:a", null);
            mute(rig);
            CompletableFuture<Long> answer = rig.driver.last.ask(1);
            rig.unbindTransport();
            rig.await(State.ABANDONED);
            ExecutionException failed =
                    assertThrows(ExecutionException.class, () -> answer.get(20, TimeUnit.SECONDS));
            assertEquals(
                    "blk0 is not back after 500 ms: no transport loop is here",
                    failed.getCause().getMessage());
            rig.backend.last.mute = false;
            rig.bindTransport();
            rig.await(State.ACTIVE);
            assertEquals(~2L, rig.ask(2));
        }
    }

    @Test
    void aLostDeviceCanBeMoved() throws Exception {
        try (Rig rig = withTwoPaths()) {
            rig.bus.unexport("loop:a");
            rig.await(State.FROZEN);
            BusTest.assertMessage(
                    "blk0 is not moved to loop:x: loop:x: nothing is exported there; there is no"
                            + " way back, loop:a is lost and still looked for",
                    () -> rig.bus.swap("blk0", "loop:x"));
            rig.bus.swap("blk0", "loop:b");
            assertEquals(State.ACTIVE, rig.device().state());
            assertEquals(~4L, rig.ask(4));
        }
    }

    @Test
    void aWaitingDeviceHasNothingToSwap() throws Exception {
        try (Rig rig = withTwoPaths()) {
            rig.unbindDriver();
            BusTest.assertMessage(
                    "blk0 waits, there is nothing to swap: no driver for blk devices is here",
                    () -> rig.bus.swap("blk0", "loop:b"));
        }
    }

    @Test
    void aDriverMayLeaveWhileTheDeviceIsLost() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.unbindTransport();
            rig.unbindDriver();
            BusTest.assertNothingHeld(rig);
            assertEquals(State.WAITING, rig.device().state());
            rig.bindTransport();
            rig.bindDriver();
            rig.await(State.ACTIVE);
        }
    }

    @Test
    void aDeviceThatKeepsFailingIsAbandoned() throws Exception {
        try (Rig rig = Rig.complete(new Settings(100, 0, 5))) {
            rig.bus.attach("loop:a", null);
            rig.backend.last.failure = new IllegalStateException("broken disk");
            CompletableFuture<Long> answer = rig.driver.last.ask(3);
            ExecutionException failed =
                    assertThrows(ExecutionException.class, () -> answer.get(20, TimeUnit.SECONDS));
            assertTrue(
                    failed.getCause().getMessage().startsWith("blk0 is not back after 100 ms"),
                    failed.getCause().getMessage());
        }
    }
}
