package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;

import java.lang.foreign.MemorySegment;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** A disk that qemu-storage-daemon serves. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class StorageDaemonIT extends ContainerTest {
    private static final int IMAGE_BYTES = 16 << 20;
    private static final int BLOCKS = 1024;

    private VirtioBus bus;
    private Path image;
    private Path socket;
    private Process daemon;

    @BeforeEach
    void setUp() throws Exception {
        container.configureBus(20_000, 5_000);
        bus = container.bus();
        image = folder.resolve("disk.img");
        socket = folder.resolve("disk.sock");
    }

    @AfterEach
    void stopServing() throws Exception {
        container.clear();
        if (daemon != null) {
            kill();
        }
    }

    private void serve(int queues) throws Exception {
        daemon = Peers.storageDaemon(socket, queues, "driver=file,discard=unmap,filename=" + image);
    }

    private void kill() throws Exception {
        daemon.destroyForcibly().waitFor();
    }

    /** An empty disk. */
    private BlockDevice attach(int queues) throws Exception {
        Files.write(image, new byte[IMAGE_BYTES]);
        serve(queues);
        bus.attach("vhost-user:" + socket, "blk0");
        return container.disk("blk0");
    }

    private MemorySegment image() throws Exception {
        return MemorySegment.ofArray(Files.readAllBytes(image));
    }

    @Test
    void aFileSystemIsCopiedOut() throws Exception {
        Path tree = Files.createDirectories(folder.resolve("tree/deep/er")).getParent().getParent();
        Random random = new Random(3);
        for (int size : new int[] {0, 1, 511, 4096, 4097, 1 << 20, 5_000_001}) {
            byte[] content = new byte[size];
            random.nextBytes(content);
            Files.write(tree.resolve("deep/er/file" + size), content);
        }
        Peers.run(
                Peers.tool("mke2fs"),
                "-q",
                "-t",
                "ext4",
                "-d",
                tree.toString(),
                image.toString(),
                "32M");
        serve(1);
        Path copy = folder.resolve("copy.img");
        Distribution.Outcome copied =
                Distribution.commands(
                        "attach vhost-user:%s --name=disk; copy disk file:%s"
                                .formatted(socket, copy));
        assertEquals(0, copied.exit(), copied.err());
        String sha256 = sha256(Files.readAllBytes(image));
        assertTrue(copied.out().contains(sha256), copied.out());
        assertEquals(sha256, sha256(Files.readAllBytes(copy)));
        Peers.run(Peers.tool("e2fsck"), "-fn", copy.toString());
        Path file = folder.resolve("file");
        Peers.run(
                Peers.tool("debugfs"), "-R", "dump /deep/er/file5000001 " + file, copy.toString());
        assertEquals(-1, Files.mismatch(tree.resolve("deep/er/file5000001"), file));

        bus.attach("vhost-user:" + socket, "blk0");
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        try (SeekableByteChannel channel = container.disk("blk0").channel()) {
            assertEquals(Files.size(image), channel.size());
            java.nio.ByteBuffer buffer = java.nio.ByteBuffer.allocate(100_000);
            while (channel.read(buffer) >= 0) {
                digest.update(buffer.flip());
                buffer.clear();
            }
        }
        assertEquals(sha256, HexFormat.of().formatHex(digest.digest()), "as a channel");
    }

    private static String sha256(byte[] content) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
    }

    @Test
    void whatIsWrittenOnAllQueuesIsInTheFile() throws Exception {
        BlockDevice disk = attach(2);
        assertEquals(IMAGE_BYTES, disk.capacityBytes());
        assertEquals(2, disk.queueCount());
        Traffic shared = new Traffic(() -> disk, 0, BLOCKS, true).start();
        Traffic heap = new Traffic(() -> disk, BLOCKS, BLOCKS, false).onQueue(1).start();
        shared.awaitMore(5000);
        heap.awaitMore(5000);
        shared.stop();
        heap.stop();
        shared.verifyImage(image());
        heap.verifyImage(image());
        DeviceSnapshot device = container.snapshot("blk0");
        assertEquals(2, device.queues().size());
        assertTrue(device.queues().get(0).used() >= 5000, "queue 0 was used");
        assertTrue(device.queues().get(1).used() >= 5000, "queue 1 was used");
    }

    @Test
    void largeAndUnalignedSegmentsAreInTheFile() throws Exception {
        BlockDevice disk = attach(1);
        byte[] content = new byte[(3 << 20) + 7];
        new Random(5).nextBytes(content);
        MemorySegment odd = MemorySegment.ofArray(content).asSlice(7);
        disk.write(512, odd).get(20, TimeUnit.SECONDS);
        disk.flush().get(20, TimeUnit.SECONDS);
        assertEquals(-1, image().asSlice(512, odd.byteSize()).mismatch(odd));
        byte[] back = new byte[3 << 20];
        disk.read(512, MemorySegment.ofArray(back)).get(20, TimeUnit.SECONDS);
        assertEquals(-1, MemorySegment.ofArray(back).mismatch(odd));
    }

    @Test
    void theFileSeesDiscardsAndZeroes() throws Exception {
        BlockDevice disk = attach(1);
        byte[] ones = new byte[IMAGE_BYTES];
        java.util.Arrays.fill(ones, (byte) 1);
        disk.write(0, MemorySegment.ofArray(ones)).get(20, TimeUnit.SECONDS);
        disk.flush().get(20, TimeUnit.SECONDS);
        assertEquals(-1, image().mismatch(MemorySegment.ofArray(ones)));
        assertTrue(disk.canDiscard() && disk.canWriteZeroes());

        long before = storedBytes();
        disk.discard(4 << 20, 4 << 20).get(20, TimeUnit.SECONDS);
        disk.flush().get(20, TimeUnit.SECONDS);
        long after = storedBytes();
        assertTrue(before - after >= 3 << 20, before + " bytes stored, then " + after);

        disk.writeZeroes(1 << 20, 1 << 20, false).get(20, TimeUnit.SECONDS);
        disk.writeZeroes((2 << 20) + 512, 512, true).get(20, TimeUnit.SECONDS);
        disk.flush().get(20, TimeUnit.SECONDS);
        MemorySegment stored = image();
        MemorySegment zeroes = MemorySegment.ofArray(new byte[1 << 20]);
        assertEquals(-1, stored.asSlice(1 << 20, 1 << 20).mismatch(zeroes));
        assertEquals(-1, stored.asSlice((2 << 20) + 512, 512).mismatch(zeroes.asSlice(0, 512)));
        MemorySegment kept = MemorySegment.ofArray(ones);
        assertEquals(-1, stored.asSlice(0, 1 << 20).mismatch(kept.asSlice(0, 1 << 20)));
        assertEquals(-1, stored.asSlice(2 << 20, 512).mismatch(kept.asSlice(0, 512)));
        assertEquals(-1, stored.asSlice(8 << 20).mismatch(kept.asSlice(0, 8 << 20)));
    }

    private long storedBytes() throws Exception {
        return 512 * Long.parseLong(Peers.run("stat", "-c", "%b", image.toString()).strip());
    }

    @Test
    void aKilledDaemonThatComesBackCostsNoRequest() throws Exception {
        BlockDevice disk = attach(2);
        Traffic shared = new Traffic(() -> disk, 0, BLOCKS, true).start();
        Traffic heap = new Traffic(() -> disk, BLOCKS, BLOCKS, false).onQueue(1).start();
        for (int round = 1; round <= 5; round++) {
            shared.awaitMore(1000);
            heap.awaitMore(1000);
            kill();
            if (round % 2 == 0) {
                container.awaitState("blk0", State.FROZEN);
            }
            serve(2);
            container.awaitState("blk0", State.ACTIVE);
        }
        shared.awaitMore(1000);
        heap.awaitMore(1000);
        shared.stop();
        heap.stop();
        kill();
        shared.verifyImage(image());
        heap.verifyImage(image());
    }

    @Test
    void requestsCaughtInFlightByAKillSucceedLater() throws Exception {
        // Every request takes half a second: these are in flight for certain.
        String slow = "driver=null-co,read-zeroes=on,size=1073741824,latency-ns=500000000";
        daemon = Peers.storageDaemon(socket, 1, slow);
        bus.attach("vhost-user:" + socket, "blk0");
        BlockDevice disk = container.disk("blk0");
        List<CompletableFuture<Void>> requests = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            requests.add(disk.read(4096 * i, MemorySegment.ofArray(new byte[4096])));
            requests.add(disk.write(4096 * i, MemorySegment.ofArray(new byte[4096])));
        }
        // The daemon answers it at once if it comes to it: no write is done that could be flushed.
        CompletableFuture<Void> flush = disk.flush();
        kill();
        container.awaitState("blk0", State.FROZEN);
        assertTrue(requests.stream().noneMatch(CompletableFuture::isDone), "they wait");
        requests.add(flush);
        daemon = Peers.storageDaemon(socket, 1, slow);
        for (CompletableFuture<Void> request : requests) {
            request.get(10, TimeUnit.SECONDS);
        }
        assertSame(disk, container.diskNow("blk0"));
    }

    @Test
    void aDaemonThatStaysAwayFailsRequestsByNameUntilItIsBack() throws Exception {
        container.configureBus(500, 100);
        BlockDevice disk = attach(1);
        kill();
        List<CompletableFuture<Void>> requests = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            requests.add(disk.write(4096 * i, MemorySegment.ofArray(new byte[4096])));
        }
        for (CompletableFuture<Void> request : requests) {
            ExecutionException thrown =
                    assertThrows(ExecutionException.class, () -> request.get(10, TimeUnit.SECONDS));
            assertSame(VirtioException.class, thrown.getCause().getClass());
            String reason = thrown.getCause().getMessage();
            assertTrue(reason.contains("500 ms") && reason.contains(socket.toString()), reason);
        }
        container.awaitState("blk0", State.ABANDONED);
        DeviceSnapshot device = container.snapshot("blk0");
        assertTrue(device.reason().contains("nobody answers"), device.reason());

        serve(1);
        container.awaitState("blk0", State.ACTIVE);
        byte[] ones = new byte[4096];
        java.util.Arrays.fill(ones, (byte) 1);
        disk.write(8192, MemorySegment.ofArray(ones)).get(10, TimeUnit.SECONDS);
        disk.flush().get(10, TimeUnit.SECONDS);
        assertEquals(-1, image().asSlice(8192, 4096).mismatch(MemorySegment.ofArray(ones)));
    }
}
