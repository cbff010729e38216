package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;
import virtio.api.status.DeviceSnapshot.State;

import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Random;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A transport that was built elsewhere is dropped into a running container. */
@Timeout(value = 180, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class ExampleTransportIT extends ContainerTest {
    private static final Path BUILT =
            Path.of("../examples/target/builds/transport.shm/target/transport.shm.jar");
    private static final String BUNDLE = "example.transport.shm";
    private static final int BLOCKS = 1024;
    private static final int SWAPS = 20;

    private VirtioBus bus;
    private Path image;
    private String shm;

    @BeforeEach
    void setUp() throws Exception {
        Assumptions.assumeTrue(
                Files.exists(BUILT), BUILT + " is not there: build the module examples");
        container.configureBus(20_000, 5_000);
        bus = container.bus();
        image = folder.resolve("disk.img");
        Files.write(image, new byte[16 << 20]);
        shm = "shm:" + folder.resolve("wire");
    }

    @AfterEach
    void takeItOut() throws Exception {
        container.clear();
        takeOut();
    }

    private void fillImage() throws Exception {
        byte[] content = new byte[16 << 20];
        new Random(17).nextBytes(content);
        Files.write(image, content);
    }

    private Path deployed() {
        return Path.of(context.getProperty("felix.fileinstall.dir")).resolve("transport.shm.jar");
    }

    private void dropIn() throws Exception {
        Path hidden = deployed().resolveSibling(".transport.shm.jar");
        Files.copy(BUILT, hidden, StandardCopyOption.REPLACE_EXISTING);
        Files.move(hidden, deployed(), StandardCopyOption.ATOMIC_MOVE);
        container.bundle(BUNDLE);
    }

    private void takeOut() throws Exception {
        Files.deleteIfExists(deployed());
        Wait.until("the bundle to go", () -> container.find(BUNDLE) == null);
    }

    @Test
    void itsJarIsDroppedInAndTakenOut() throws Exception {
        fillImage();
        VirtioException none =
                assertThrows(VirtioException.class, () -> bus.export("ram:1MiB", shm));
        assertTrue(none.getMessage().contains("shm"), none.getMessage());
        container.declareExport("file:" + image, shm);
        container.declareAttachment(shm, "blk0");
        Wait.until(
                "the attachment to wait",
                () -> bus.devices().stream().anyMatch(d -> d.state() == State.WAITING));
        for (int round = 0; round < 2; round++) {
            dropIn();
            container.awaitState("blk0", State.ACTIVE);
            BlockDevice disk = container.disk("blk0");
            MemorySegment read = MemorySegment.ofArray(new byte[8192]);
            disk.read(0, read).get();
            byte[] stored = Files.readAllBytes(image);
            assertEquals(-1, read.mismatch(MemorySegment.ofArray(stored).asSlice(0, 8192)));
            takeOut();
            Wait.until("the file to go", () -> !Files.exists(folder.resolve("wire")));
        }
    }

    @Test
    void aDiskIsSwappedToItAndBackUnderLoad() throws Exception {
        dropIn();
        Wait.until(
                "the transport",
                () -> bus.candidates().stream().noneMatch(c -> c.address().equals(shm)));
        container.declareExport("file:" + image, "mmio:near");
        container.declareExport("file:" + image, shm);
        container.declareAttachment("mmio:near", "blk0");
        BlockDevice disk = container.disk("blk0");
        Wait.until(
                "the export",
                () ->
                        bus.candidates().stream()
                                .anyMatch(c -> c.address().equals(shm) && c.unavailable() == null));
        Traffic shared = new Traffic(() -> disk, 0, BLOCKS, true).start();
        Traffic heap = new Traffic(() -> disk, BLOCKS, BLOCKS, false).start();
        for (int i = 0; i < SWAPS; i++) {
            shared.awaitMore(100);
            heap.awaitMore(100);
            bus.swap("blk0", i % 2 == 0 ? shm : "mmio:near");
            assertSame(disk, container.diskNow("blk0"));
        }
        shared.awaitMore(100);
        heap.awaitMore(100);
        shared.stop();
        heap.stop();
        MemorySegment stored = MemorySegment.ofArray(Files.readAllBytes(image));
        shared.verifyImage(stored);
        heap.verifyImage(stored);
        assertEquals(SWAPS, container.snapshot("blk0").swaps());
    }

    @Test
    void oneProcessOffersAndAnotherOneCopies() throws Exception {
        fillImage();
        Path home = Distribution.home(Files.createDirectory(folder.resolve("home")), BUILT);
        Path back = folder.resolve("back.img");
        Process server = Distribution.serve(home, "ram:16MiB", shm);
        try {
            Distribution.Outcome copied =
                    Distribution.commands(
                            home,
                            "attach %s; copy file:%s blk0; copy blk0 file:%s"
                                    .formatted(shm, image, back));
            assertEquals(0, copied.exit(), copied.err());
            Matcher sums = Pattern.compile("sha256 (\\p{XDigit}+)").matcher(copied.out());
            assertTrue(sums.find(), copied.out());
            String there = sums.group(1);
            assertTrue(sums.find(), copied.out());
            assertEquals(there, sums.group(1));
            assertEquals(-1, Files.mismatch(image, back));
        } finally {
            server.destroyForcibly().waitFor();
        }
    }

    @Test
    void aDeviceWhoseProcessIsKilledComesBackUnderItsConsumers() throws Exception {
        // A process takes its time to start.
        container.configureBus(100_000, 5_000);
        Path home = Distribution.home(Files.createDirectory(folder.resolve("home")), BUILT);
        dropIn();
        String backend = "file:" + image;
        Process server = Distribution.serve(home, backend, shm);
        try {
            container.declareAttachment(shm, "blk0");
            BlockDevice disk = container.disk("blk0");
            Traffic traffic = new Traffic(() -> disk, 0, BLOCKS, false).start();
            traffic.awaitMore(200);
            server.destroyForcibly().waitFor();
            server = Distribution.serve(home, backend, shm);
            traffic.awaitMore(200);
            traffic.stop();
            traffic.verifyImage(MemorySegment.ofArray(Files.readAllBytes(image)));
            assertSame(disk, container.diskNow("blk0"));
        } finally {
            bus.detach("blk0");
            server.destroyForcibly().waitFor();
        }
    }
}
