package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;

import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** The front-end against qemu-storage-daemon. */
class StorageDaemonTest {
    private static final int IMAGE_BYTES = 8 << 20;

    @TempDir Path folder;
    private Path socket;
    private Path image;
    private Process daemon;
    private List<Integer> before;

    @BeforeEach
    void remember() {
        socket = folder.resolve("b.sock");
        image = folder.resolve("disk.raw");
        before = Peers.live();
    }

    @AfterEach
    void nothingIsLeft() throws Exception {
        if (daemon != null) {
            daemon.destroyForcibly().waitFor();
        }
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    private byte[] serveImage(int queues) throws Exception {
        return serveImage("qemu_storage_daemon", queues);
    }

    private byte[] serveImage(String tool, int queues) throws Exception {
        byte[] content = new byte[IMAGE_BYTES];
        new Random(1).nextBytes(content);
        Files.write(image, content);
        serveFile(tool, queues);
        return content;
    }

    private void serveFile(String tool, int queues) throws Exception {
        daemon = Peers.storageDaemon(tool, socket, queues, "driver=file,filename=" + image);
    }

    private VhostUserTransport open() throws VirtioException {
        return new VhostUserTransport(
                new VhostUserProvider.Device(
                        "vhost-user:" + socket, socket, 0, 16 << 20, 4096, 10_000));
    }

    @Test
    void capacityIsTheImagesSize() throws Exception {
        serveImage(2);
        try (TinyDisk disk = new TinyDisk(open())) {
            assertEquals(IMAGE_BYTES / 512, disk.capacity());
            assertEquals(DeviceType.BLOCK, disk.transport.deviceType());
            assertTrue(disk.transport.offered().has(Feature.EVENT_IDX));
            assertEquals(1024, disk.transport.maxQueueSize(1));
            assertEquals(0, disk.transport.maxQueueSize(2));
            VirtioException beyond =
                    assertThrows(
                            VirtioException.class,
                            () -> disk.transport.readConfig(200, new byte[8]));
            assertTrue(
                    beyond.getMessage().contains("8 bytes of configuration at offset 200"),
                    beyond.getMessage());
            assertEquals(IMAGE_BYTES / 512, disk.capacity(), "still works");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"qemu_storage_daemon", "qemu_storage_daemon_trixie"})
    void readsAndWritesSharedAndBouncedMemory(String tool) throws Exception {
        byte[] content = serveImage(tool, 1);
        try (TinyDisk disk = new TinyDisk(open())) {
            CoherentMemory shared = disk.ops.alloc(disk.transport.mapToken(0), 65536);
            disk.read(16, shared.segment());
            byte[] heap = new byte[65536];
            disk.read(16, MemorySegment.ofArray(heap));
            byte[] expected = new byte[65536];
            System.arraycopy(content, 16 * 512, expected, 0, expected.length);
            assertArrayEquals(expected, heap);
            assertEquals(-1, shared.segment().mismatch(MemorySegment.ofArray(expected)));

            try (Arena arena = Arena.ofConfined()) {
                disk.write(100, arena.allocate(512).fill((byte) 7));
            }
            byte[] written = new byte[512];
            try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "r")) {
                file.seek(100 * 512);
                file.readFully(written);
            }
            assertEquals(-1, MemorySegment.ofArray(written).mismatch(filled(7)));
            disk.ops.free(disk.transport.mapToken(0), shared);
        }
    }

    private static MemorySegment filled(int value) {
        return MemorySegment.ofArray(new byte[512]).fill((byte) value);
    }

    @Test
    void memoryGrowsWhileTheDeviceRuns() throws Exception {
        byte[] content = serveImage(1);
        try (TinyDisk disk = new TinyDisk(open())) {
            var token = disk.transport.mapToken(0);
            List<CoherentMemory> all = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                CoherentMemory memory = disk.ops.alloc(token, 10 << 20);
                disk.read(2048 * i, memory.segment().asSlice(9 << 20, 4096));
                assertEquals(
                        -1,
                        memory.segment()
                                .asSlice(9 << 20, 4096)
                                .mismatch(
                                        MemorySegment.ofArray(content)
                                                .asSlice(2048 * 512 * i, 4096)));
                assertTrue(
                        !disk.ops.needSync(
                                token,
                                disk.ops.mapPage(
                                        token, memory.segment(), 4096, 1, Direction.TO_DEVICE, 0)),
                        "zero-copy");
                all.add(memory);
            }
            all.forEach(memory -> disk.ops.free(token, memory));
        }
    }

    @Test
    void aKilledDaemonIsReportedAndTheNextOneServes() throws Exception {
        serveImage(1);
        TinyDisk disk = new TinyDisk(open());
        CoherentMemory kept = disk.ops.alloc(disk.transport.mapToken(0), 4096);
        daemon.destroyForcibly().waitFor();
        String reason = disk.awaitGone();
        assertTrue(reason.startsWith("peer closed vhost-user:" + socket), reason);
        VirtioException refused = assertThrows(VirtioException.class, this::open);
        assertTrue(refused.getMessage().contains("nobody answers there"), refused.getMessage());
        disk.close();
        kept.segment().fill((byte) 1);

        serveFile("qemu_storage_daemon", 1);
        try (TinyDisk again = new TinyDisk(open())) {
            byte[] bytes = new byte[512];
            again.read(0, MemorySegment.ofArray(bytes));
            again.read(0, kept.segment().asSlice(0, 512));
            assertEquals(-1, kept.segment().asSlice(0, 512).mismatch(MemorySegment.ofArray(bytes)));
            assertNull(again.gone);
        }
        disk.ops.free(disk.transport.mapToken(0), kept);
        assertThrows(IllegalStateException.class, () -> kept.segment().fill((byte) 1));
    }

    @Test
    void resetWaitsForRequestsInFlight() throws Exception {
        daemon =
                Peers.storageDaemon(
                        "qemu_storage_daemon",
                        socket,
                        1,
                        "driver=null-co,size=1073741824,read-zeroes=on,latency-ns=500000000");
        try (TinyDisk disk = new TinyDisk(open())) {
            var token = disk.transport.mapToken(0);
            CoherentMemory buffer = disk.ops.alloc(token, 8192);
            CoherentMemory id = disk.ops.alloc(token, 20);
            buffer.segment().fill((byte) 1);
            disk.submit(TinyDisk.READ, 0, buffer.mapHandle(), 4096);
            disk.submit(TinyDisk.READ, 8, buffer.mapHandle() + 4096, 4096);
            // Answered at once, and taken from the ring after the two.
            disk.submit(TinyDisk.GET_ID, 0, id.mapHandle(), 20);
            disk.await();
            assertEquals(1, disk.used());
            disk.transport.status(0);
            assertEquals(0, disk.transport.status());
            // Both have been written by now and nothing comes later.
            assertEquals(0, disk.status(0));
            assertEquals(0, disk.status(1));
            assertNull(disk.gone);

            disk.start();
            disk.read(0, buffer.segment().asSlice(0, 512));
            disk.ops.free(token, buffer);
            disk.ops.free(token, id);
        }
    }

    @Test
    void resetAndStartAgainOnOneConnection() throws Exception {
        byte[] content = serveImage(1);
        try (TinyDisk disk = new TinyDisk(open())) {
            byte[] bytes = new byte[512];
            for (int i = 0; i < 3; i++) {
                disk.read(i, MemorySegment.ofArray(bytes));
                assertEquals(
                        -1,
                        MemorySegment.ofArray(bytes)
                                .mismatch(MemorySegment.ofArray(content).asSlice(512 * i, 512)));
                disk.start();
            }
            assertNull(disk.gone);
        }
    }

    @Test
    void aSecondFrontEndIsToldInTime() throws Exception {
        serveImage(1);
        try (TinyDisk disk = new TinyDisk(open())) {
            VirtioException busy =
                    assertThrows(
                            VirtioException.class,
                            () ->
                                    new VhostUserTransport(
                                            new VhostUserProvider.Device(
                                                    "vhost-user:" + socket,
                                                    socket,
                                                    0,
                                                    1 << 20,
                                                    4096,
                                                    200)));
            assertTrue(
                    busy.getMessage().contains("no answer to GET_FEATURES in 200 ms"),
                    busy.getMessage());
            assertTrue(disk.capacity() > 0);
        }
    }
}
