package virtio.ring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;
import virtio.api.transport.Candidate;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** Attachments and exports while services come and go. */
@Tag("unchecked")
@Timeout(60)
class BusTest {
    @Test
    void attachesByHandAndServes() throws Exception {
        try (Rig rig = Rig.complete()) {
            DeviceSnapshot device = rig.bus.attach("loop:a", null);
            assertEquals("blk0", device.name());
            assertEquals(State.ACTIVE, device.state());
            assertNull(device.reason());
            assertEquals("test.driver 1.0.0", device.driver());
            assertEquals("test.loop 1.0.0", device.transport());
            assertEquals(1, device.queues().size());
            assertEquals(
                    DeviceStatus.ACKNOWLEDGE
                            | DeviceStatus.DRIVER
                            | DeviceStatus.FEATURES_OK
                            | DeviceStatus.DRIVER_OK,
                    device.deviceStatus());
            assertTrue(device.accepted().has(9), device.accepted()::toString);
            assertTrue(device.accepted().has(Feature.VERSION_1));
            assertTrue(device.wanted().has(12), "wanted but not offered shows as wanted");
            assertEquals(Features.of(5, 9, Feature.VERSION_1), rig.backend.last.accepted);
            assertEquals(~42L, rig.ask(42));
            assertEquals("driven by a test", rig.bus.exports().getFirst().driver());
            rig.bus.detach("blk0");
            assertEquals(List.of(), rig.bus.devices());
            assertNothingHeld(rig);
        }
    }

    @Test
    void aTypeWithoutAWordIsKeptApartFromTheNumberBehindIt() throws Exception {
        try (Rig rig = new Rig()) {
            AttachedDevice device = rig.bus.declareAttachment("loop:a", null);
            assertEquals("type18-0", rig.bus.claimName(device, 18));
            AttachedDevice next = rig.bus.declareAttachment("loop:b", null);
            assertEquals("type18-1", rig.bus.claimName(next, 18));
        }
    }

    /** Everything that has to be there, as it may come and go in any order. */
    enum Part {
        TRANSPORT,
        MAP_OPS,
        EXPORTER,
        DRIVER,
        BACKEND,
        EXPORT,
        ATTACHMENT;
    }

    static Stream<List<Part>> orders() {
        List<List<Part>> orders = new ArrayList<>();
        permute(new ArrayList<>(List.of(Part.values())), 0, orders);
        // Every 29th of 5040, which is prime to all factors of it: each part gets to each place.
        return IntStream.range(0, orders.size()).filter(i -> i % 29 == 0).mapToObj(orders::get);
    }

    private static void permute(List<Part> parts, int from, List<List<Part>> orders) {
        if (from == parts.size()) {
            orders.add(List.copyOf(parts));
        }
        for (int i = from; i < parts.size(); i++) {
            Collections.swap(parts, from, i);
            permute(parts, from + 1, orders);
            Collections.swap(parts, from, i);
        }
    }

    @ParameterizedTest
    @MethodSource("orders")
    void comesUpInEveryOrder(List<Part> order) throws Exception {
        try (Rig rig = new Rig()) {
            for (Part part : order) {
                come(rig, part);
            }
            rig.await(State.ACTIVE);
            assertEquals(~7L, rig.ask(7));
        }
    }

    @ParameterizedTest
    @MethodSource("orders")
    void goesDownInEveryOrder(List<Part> order) throws Exception {
        try (Rig rig = new Rig()) {
            AttachedDevice attachment = rig.bus.declareAttachment("loop:a", null);
            DeclaredExport export = rig.bus.declareExport("echo:1000", "loop:a");
            rig.bindBackend();
            rig.bindExporter();
            rig.bindMapOps();
            rig.bindTransport();
            rig.bindDriver();
            rig.await(State.ACTIVE);
            for (Part part : order) {
                switch (part) {
                    case TRANSPORT -> rig.unbindTransport();
                    case MAP_OPS -> rig.unbindMapOps();
                    case EXPORTER -> rig.unbindExporter();
                    case DRIVER -> rig.unbindDriver();
                    case BACKEND -> rig.unbindBackend();
                    case EXPORT -> rig.bus.withdraw(export);
                    case ATTACHMENT -> rig.bus.withdraw(attachment);
                }
            }
            assertEquals(List.of(), rig.bus.devices());
            assertEquals(List.of(), rig.bus.exports());
            assertNothingHeld(rig);
            assertEquals(0, rig.loop.exported.get(), "exports");
            assertEquals(0, rig.backend.open.get(), "backends");
        }
    }

    private static void come(Rig rig, Part part) throws VirtioException {
        switch (part) {
            case TRANSPORT -> rig.bindTransport();
            case MAP_OPS -> rig.bindMapOps();
            case EXPORTER -> rig.bindExporter();
            case DRIVER -> rig.bindDriver();
            case BACKEND -> rig.bindBackend();
            case EXPORT -> rig.bus.declareExport("echo:1000", "loop:a");
            case ATTACHMENT -> rig.bus.declareAttachment("loop:a", "disk");
        }
    }

    static void assertNothingHeld(Rig rig) {
        assertEquals(0, rig.loop.open.get(), "open transports");
        assertEquals(0, rig.loop.ops.live.get(), "live mappings");
        assertEquals(0, rig.driver.bound.get(), "bound drivers");
    }

    @Test
    void leavesNoThreads() throws Exception {
        Rig rig = Rig.complete();
        rig.bus.attach("loop:a", "threads");
        rig.ask(1);
        rig.close();
        rig.await(
                () ->
                        Thread.getAllStackTraces().keySet().stream()
                                .noneMatch(thread -> thread.getName().equals("virtio-threads")),
                "without threads");
    }

    @Test
    void transportWithoutMapOpsIsRefusedByName() throws Exception {
        try (Rig rig = new Rig()) {
            rig.bindDriver();
            rig.bindTransport();
            // Map operations of another bundle do not count.
            rig.bus.bindMapOps(FakeReference.to(FakeReference.bundle("test.other")), rig.loop.ops);
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
            assertTrue(
                    refused.getMessage()
                            .startsWith("transport loop is refused: its bundle test.loop"),
                    refused.getMessage());
            Candidate candidate = rig.bus.candidates().getFirst();
            assertEquals("loop:", candidate.address());
            assertEquals(refused.getMessage(), candidate.unavailable());
            rig.bus.declareAttachment("loop:a", null);
            rig.await(
                    () -> refused.getMessage().equals(rig.device().reason()),
                    "waiting with reason");
            assertEquals(State.WAITING, rig.device().state());
        }
    }

    @Test
    void whoCanOfferNothingSaysWhy() throws Exception {
        try (Rig rig = new Rig()) {
            rig.bindExporter();
            assertTrue(rig.bus.candidates().isEmpty(), "what can be offered is no candidate");
            rig.loop.unavailable = "the module is missing";
            Candidate candidate = rig.bus.candidates().getFirst();
            assertEquals("loop:", candidate.address());
            assertEquals("the module is missing", candidate.unavailable());
            rig.loop.throwing = "unavailable";
            String said = rig.bus.candidates().getFirst().unavailable();
            assertTrue(said.startsWith("it threw "), said);
        }
    }

    @Test
    void byHandNothingIsDeclaredThatDoesNotWorkNow() throws Exception {
        try (Rig rig = new Rig()) {
            assertMessage("no transport loop is here", () -> rig.bus.attach("loop:a", null));
            rig.bindMapOps();
            rig.bindTransport();
            assertMessage("no transport x is here (here: loop)", () -> rig.bus.attach("x:a", null));
            assertMessage(
                    "loop:a: nothing is exported there", () -> rig.bus.attach("loop:a", null));
            assertMessage(
                    "no transport loop that exports is here",
                    () -> rig.bus.export("echo:1", "loop:a"));
            rig.bindExporter();
            assertMessage("no backend echo is here", () -> rig.bus.export("echo:1", "loop:a"));
            rig.bindBackend();
            assertMessage("\"x\" is no capacity", () -> rig.bus.export("echo:x", "loop:a"));
            rig.bus.export("echo:1", "loop:a");
            assertMessage("loop:a is exported already", () -> rig.bus.export("echo:1", "loop:a"));
            assertMessage(
                    "no driver for blk devices is here", () -> rig.bus.attach("loop:a", null));
            rig.bindDriver();
            rig.bus.attach("loop:a", "one");
            assertMessage(
                    "loop:a is attached already, as one", () -> rig.bus.attach("loop:a", null));
            rig.bus.export("echo:1", "loop:b");
            assertMessage("one is taken, by loop:a", () -> rig.bus.attach("loop:b", "one"));
            assertMessage("no device two is attached", () -> rig.bus.detach("two"));
            assertMessage("nothing is exported at loop:c", () -> rig.bus.unexport("loop:c"));
            assertMessage(
                    "\"nonsense\" is no address: it has the form mmio:emu0",
                    () -> rig.bus.attach("nonsense", null));
            assertEquals(1, rig.bus.devices().size());
            assertEquals(2, rig.bus.exports().size());
            rig.bus.unexport("loop:b");
            rig.bus.unexport("loop:a");
            assertEquals(0, rig.backend.open.get());
        }
    }

    static void assertMessage(String message, Executable call) {
        assertEquals(message, assertThrows(VirtioException.class, call).getMessage());
    }

    @Test
    void driverLeavesAndComesBack() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.ask(1);
            EchoDriver.Echo first = rig.driver.last;
            rig.unbindDriver();
            // Synchronously: the bundle stops when this returns.
            assertNothingHeld(rig);
            assertEquals(State.WAITING, rig.device().state());
            assertEquals("no driver for blk devices is here", rig.device().reason());
            assertEquals(List.of("probe", "freeze 1000", "remove", "abandon"), rig.driver.calls);
            rig.bindDriver();
            rig.await(State.ACTIVE);
            assertTrue(rig.driver.last != first);
            assertEquals(~2L, rig.ask(2));
        }
    }

    @Test
    void exporterComesBackToTheSameBackend() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.ask(1);
            EchoBackend before = rig.backend.last;
            rig.unbindExporter();
            assertEquals(0, rig.loop.exported.get());
            assertEquals(0, before.queuesLive);
            assertNotNull(rig.bus.exports().getFirst().reason());
            rig.bindExporter();
            rig.await(State.ACTIVE);
            assertEquals(~2L, rig.ask(2));
            assertEquals(before, rig.backend.last, "the same backend");
        }
    }

    @Test
    void configurationChangesReachTheDriver() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.backend.last.resize(2000);
            rig.await(() -> rig.driver.last.capacitySeen == 2000, "told");
        }
    }

    @Test
    void driverThatRefusesKeepsNothing() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.driver.refuseProbe = new VirtioException("not this one");
            assertMessage("not this one", () -> rig.bus.attach("loop:a", null));
            assertNothingHeld(rig);
            rig.driver.refuseProbe = null;
            rig.driver.forgetReady = true;
            assertMessage(
                    "blk0: driver test.driver 1.0.0 returned from probe without calling ready",
                    () -> rig.bus.attach("loop:a", null));
            assertNothingHeld(rig);
            assertEquals(List.of(), rig.bus.devices());
        }
    }
}
