package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.linux.FileDescriptor;

import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The front-end against the back-end. */
class LoopbackTest {
    @TempDir Path folder;
    private Path socket;
    private List<Integer> before;
    private final RamDevice device = new RamDevice();

    @BeforeEach
    void remember() {
        socket = folder.resolve("x.sock");
        before = Peers.live();
    }

    @AfterEach
    void nothingIsLeft() {
        assertEquals(before, Peers.live(), "descriptors and mappings");
        long threads =
                Thread.getAllStackTraces().keySet().stream()
                        .filter(thread -> thread.getName().startsWith("virtio-vhost-user"))
                        .count();
        assertEquals(0, threads, "threads");
    }

    private VhostUserExport export() throws VirtioException {
        return new VhostUserExport("vhost-user:" + socket, socket, Features.NONE, device, _ -> {});
    }

    private VhostUserTransport open() throws VirtioException {
        return new VhostUserTransport(
                new VhostUserProvider.Device(
                        "vhost-user:" + socket, socket, 0, 1 << 20, 4096, 10_000));
    }

    @Test
    void readsWhatWasWritten() throws Exception {
        try (VhostUserExport export = export()) {
            assertNull(export.driver());
            try (TinyDisk disk = new TinyDisk(open())) {
                assertEquals(DeviceType.BLOCK, disk.transport.deviceType());
                assertEquals(RamDevice.SECTORS, disk.capacity());
                assertEquals(1024, disk.transport.maxQueueSize(1));
                assertEquals(0, disk.transport.maxQueueSize(2));
                assertNotNull(export.driver());
                byte[] bytes = new byte[4096];
                for (int i = 0; i < 300; i++) {
                    disk.write(i, MemorySegment.ofArray(bytes).fill((byte) i));
                    disk.read(i, MemorySegment.ofArray(bytes));
                    assertEquals((byte) i, bytes[i]);
                }
                assertEquals(
                        DeviceStatus.ACKNOWLEDGE
                                | DeviceStatus.DRIVER
                                | DeviceStatus.FEATURES_OK
                                | DeviceStatus.DRIVER_OK,
                        disk.transport.status());
            }
        }
        assertTrue(Files.notExists(socket), "socket file");
    }

    @Test
    void featuresAreLeftAloneAtEitherEnd() throws Exception {
        VhostUserProvider provider = new VhostUserProvider(1 << 20, 0, 10_000, List.of());
        String whole = socket.toString();
        try (Export _ = new VhostUserExporter().export(whole + ",without=EVENT_IDX", device)) {
            try (Transport all = provider.open(whole)) {
                assertEquals(device.offered().without(Feature.EVENT_IDX), all.offered());
            }
            try (Transport some = provider.open(whole + ",without=INDIRECT_DESC,without=FLUSH")) {
                assertEquals(Features.of(Feature.VERSION_1), some.offered());
            }
        }
    }

    @Test
    void featuresThatTheDeviceCannotHaveAreRefusedByName() throws Exception {
        String misspelt = socket + ",without=RING_PAKED";
        String message =
                "vhost-user:%s: without=RING_PAKED is no feature of a blk device, as RING_PACKED is"
                        .formatted(socket);
        var offering =
                assertThrows(
                        VirtioException.class,
                        () -> new VhostUserExporter().export(misspelt, device));
        assertEquals(message, offering.getMessage());
        assertTrue(Files.notExists(socket), "socket file");
        try (VhostUserExport _ = export()) {
            VhostUserProvider provider = new VhostUserProvider(1 << 20, 0, 10_000, List.of());
            var driving =
                    assertThrows(VirtioException.class, () -> provider.open(misspelt).close());
            assertEquals(message, driving.getMessage());
            assertThrows(VirtioException.class, () -> provider.open(socket + ",without=MRG_RXBUF"));
        }
    }

    @Test
    void theNextFrontEndIsServed() throws Exception {
        try (VhostUserExport _ = export()) {
            for (int i = 0; i < 5; i++) {
                try (TinyDisk disk = new TinyDisk(open())) {
                    disk.write(i, MemorySegment.ofArray(new byte[512]));
                }
                Peers.await("the queues to stop", () -> device.running() == 0);
            }
        }
    }

    @Test
    void resetAndStartAgain() throws Exception {
        try (VhostUserExport _ = export();
                TinyDisk disk = new TinyDisk(open())) {
            Peers.await("the first ring", () -> device.running() == 1);
            int held = FileDescriptor.live();
            for (int i = 0; i < 3; i++) {
                disk.write(i, MemorySegment.ofArray(new byte[512]));
                disk.transport.status(0);
                assertEquals(0, device.running());
                assertEquals(0, disk.transport.status());
                assertEquals(Features.NONE, device.accepted);
                disk.start();
            }
            Peers.await("the last ring", () -> device.running() == 1);
            assertEquals(held, FileDescriptor.live(), "descriptors");
        }
    }

    @Test
    void aQueueAloneIsResetAndGoesOnAfresh() throws Exception {
        try (VhostUserExport _ = export();
                TinyDisk disk = new TinyDisk(open())) {
            MapOps ops = disk.ops;
            CoherentMemory ring = ops.alloc(disk.transport.mapToken(1), 4096);
            long at = ring.mapHandle();
            for (int i = 0; i < 3; i++) {
                disk.transport.startQueue(1, new QueueLayout(16, at, at + 256, at + 1024));
                Peers.await("queue 1", () -> device.running() == 2);
                assertTrue(disk.transport.stopQueue(1));
                assertEquals(1, device.running());
            }
            disk.write(1, MemorySegment.ofArray(new byte[512]));
            ops.free(disk.transport.mapToken(1), ring);
        }
    }

    @Test
    void theExportsEndIsReportedAtOnce() throws Exception {
        TinyDisk disk;
        try (VhostUserExport _ = export()) {
            disk = new TinyDisk(open());
        }
        assertEquals("peer closed vhost-user:" + socket, disk.awaitGone());
        assertThrows(VirtioException.class, () -> disk.transport.status(0));
        assertThrows(VirtioException.class, this::open);
        disk.transport.notifyQueue(0, 0);
        disk.close();
        disk.transport.notifyQueue(0, 0);
    }

    @Test
    void memoryOutlivesTheTransportUntilGivenBack() throws Exception {
        try (VhostUserExport _ = export()) {
            TinyDisk disk = new TinyDisk(open());
            var token = disk.transport.mapToken(0);
            CoherentMemory kept = disk.ops.alloc(token, 4096);
            MemorySegment heap = MemorySegment.ofArray(new byte[64]);
            long bounced = disk.ops.mapPage(token, heap, 0, 64, Direction.TO_DEVICE, 0);
            disk.close();
            kept.segment().fill((byte) 1);
            assertEquals(
                    MapOps.MAPPING_ERROR,
                    disk.ops.mapPage(token, heap, 0, 64, Direction.TO_DEVICE, 0));
            assertNull(disk.ops.alloc(token, 64));
            disk.ops.free(token, kept);
            kept.segment().fill((byte) 2);
            disk.ops.unmapPage(token, bounced, 64, Direction.TO_DEVICE, 0);
            assertThrows(IllegalStateException.class, () -> kept.segment().fill((byte) 3));
        }
    }

    @Test
    void configurationChangesAreAnnounced() throws Exception {
        try (VhostUserExport export = export();
                TinyDisk disk = new TinyDisk(open())) {
            disk.write(0, MemorySegment.ofArray(new byte[512]));
            int generation = disk.transport.configGeneration();
            export.configChanged();
            assertTrue(disk.configChanges.tryAcquire(10, TimeUnit.SECONDS));
            assertEquals(generation + 1, disk.transport.configGeneration());
            disk.transport.writeConfig(32, new byte[1]);
            assertEquals(32, device.writtenConfig);
            VirtioException refused =
                    assertThrows(
                            VirtioException.class,
                            () -> disk.transport.writeConfig(60, new byte[1]));
            assertTrue(refused.getMessage().contains("refused SET_CONFIG"), refused.getMessage());
            assertEquals(RamDevice.SECTORS, disk.capacity());
        }
    }

    @Test
    void aBrokenQueueMeansThatTheDeviceNeedsReset() throws Exception {
        try (VhostUserExport _ = export();
                TinyDisk disk = new TinyDisk(open())) {
            disk.submit(TinyDisk.READ, 0, 4096, 512);
            assertTrue(disk.configChanges.tryAcquire(10, TimeUnit.SECONDS));
            Peers.await(
                    "NEEDS_RESET",
                    () -> {
                        try {
                            return (disk.transport.status() & DeviceStatus.DEVICE_NEEDS_RESET) != 0;
                        } catch (VirtioException e) {
                            throw new AssertionError(e);
                        }
                    });
            disk.start();
            disk.write(1, MemorySegment.ofArray(new byte[512]));
        }
    }

    @Test
    void memoryGrowsWhileTheDeviceRuns() throws Exception {
        try (VhostUserExport _ = export();
                TinyDisk disk = new TinyDisk(open())) {
            var token = disk.transport.mapToken(0);
            CoherentMemory[] all = new CoherentMemory[6];
            for (int i = 0; i < all.length; i++) {
                all[i] = disk.ops.alloc(token, 700_000);
                disk.read(0, all[i].segment().asSlice(690_000, 512));
            }
            for (CoherentMemory memory : all) {
                disk.ops.free(token, memory);
            }
        }
    }

    @Test
    void featuresAreNegotiated() throws Exception {
        device.alsoOffered = Features.of(Feature.ACCESS_PLATFORM, Feature.NOTIFICATION_DATA, 77);
        try (VhostUserExport _ = export();
                VhostUserTransport transport = open()) {
            assertEquals(
                    Features.of(9, Feature.VERSION_1, Feature.INDIRECT_DESC, Feature.EVENT_IDX),
                    transport.offered());
            VirtioException refused =
                    assertThrows(VirtioException.class, () -> transport.accept(Features.of(9)));
            assertTrue(refused.getMessage().contains("SET_FEATURES"), refused.getMessage());
            transport.status(
                    DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK);
            assertEquals(
                    DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER,
                    transport.status(),
                    "FEATURES_OK stays off");
        }
    }

    @Test
    void takenAddressesAreRefused() throws Exception {
        try (VhostUserExport _ = export()) {
            VirtioException taken = assertThrows(VirtioException.class, this::export);
            assertTrue(taken.getMessage().contains("taken"), taken.getMessage());
        }
        Files.writeString(socket, "no socket");
        VirtioException file = assertThrows(VirtioException.class, this::export);
        assertTrue(file.getMessage().contains("no socket"), file.getMessage());
        VirtioException open = assertThrows(VirtioException.class, this::open);
        assertTrue(open.getMessage().contains("that is no socket"), open.getMessage());
        Files.delete(socket);
        VirtioException missing = assertThrows(VirtioException.class, this::open);
        assertTrue(missing.getMessage().contains("no such socket"), missing.getMessage());
        VirtioException noFolder =
                assertThrows(
                        VirtioException.class,
                        () ->
                                new VhostUserExport(
                                        "x",
                                        folder.resolve("a/b.sock"),
                                        Features.NONE,
                                        device,
                                        _ -> {}));
        assertTrue(noFolder.getMessage().contains("no such folder"), noFolder.getMessage());
    }
}
