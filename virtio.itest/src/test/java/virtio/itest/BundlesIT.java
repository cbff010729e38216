package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.osgi.framework.Bundle;

import virtio.api.block.BlockDevice;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;
import virtio.tck.TestDevice;

import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Bundles come and go, in every order and under load. */
@Timeout(value = 240, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class BundlesIT extends ContainerTest {
    private static final String DECLARATIONS = "declarations";
    private static final int BLOCKS = 1024;

    @BeforeEach
    void setUp() throws Exception {
        container.configureBus(20_000, 2_000);
    }

    @Test
    void aDiskAppearsInWhateverOrderItsPartsCome() throws Exception {
        List<List<String>> orders =
                orders(
                        List.of(
                                Container.CORE,
                                Container.MMIO,
                                Container.BACKENDS,
                                Container.DRIVER,
                                DECLARATIONS));
        assertEquals(120, orders.size());
        container.stopAllAndSeeNothingIsLeft();
        int number = 0;
        for (List<String> order : orders) {
            String said = "in the order " + order;
            for (String part : order) {
                assertNull(container.diskNow("blk0"), said);
                come(part);
            }
            BlockDevice disk = container.disk("blk0");
            writeAndReadBack(disk, number++);
            List<String> leaving = number % 2 == 0 ? order : order.reversed();
            boolean served = true;
            for (String part : leaving) {
                served &= !List.of(Container.CORE, Container.DRIVER, DECLARATIONS).contains(part);
                go(part);
                assertEquals(served, container.diskNow("blk0") != null, said + " without " + part);
            }
            Container.nothingIsHeld();
        }
    }

    private void come(String part) throws Exception {
        if (part.equals(DECLARATIONS)) {
            container.declareExport("ram:1MiB", "mmio:order");
            container.declareAttachment("mmio:order", "blk0");
        } else {
            container.bundle(part).start();
        }
    }

    private void go(String part) throws Exception {
        if (part.equals(DECLARATIONS)) {
            container.undeclare();
        } else {
            container.bundle(part).stop();
        }
    }

    private static List<List<String>> orders(List<String> parts) {
        if (parts.isEmpty()) {
            return List.of(List.of());
        }
        List<List<String>> all = new ArrayList<>();
        for (String first : parts) {
            List<String> others = new ArrayList<>(parts);
            others.remove(first);
            for (List<String> rest : orders(others)) {
                List<String> order = new ArrayList<>(List.of(first));
                order.addAll(rest);
                all.add(order);
            }
        }
        return all;
    }

    @Test
    void theDriversJarIsDroppedInAndTakenOut() throws Exception {
        Path deploy = Path.of(context.getProperty("felix.fileinstall.dir"));
        Path jar = deploy.resolve("device.blk.jar");
        Path aside = folder.resolve("device.blk.jar");
        container.bundle(Container.DRIVER);
        Files.copy(jar, aside);
        container.declareExport("file:" + image(), "mmio:hot");
        container.declareAttachment("mmio:hot", "blk0");
        BlockDevice last = container.disk("blk0");
        writeAndReadBack(last, 1);
        for (int round = 0; round < 3; round++) {
            Files.delete(jar);
            Wait.until("the disk to go", () -> container.diskNow("blk0") == null);
            Wait.until("the bundle to go", () -> container.find(Container.DRIVER) == null);
            DeviceSnapshot waiting = container.snapshot("blk0");
            assertEquals(State.WAITING, waiting.state());
            assertTrue(waiting.reason().contains("driver"), waiting.reason());
            assertEquals(0, waiting.deviceStatus(), "the device was reset");
            assertEquals(null, container.bus().exports().getFirst().driver());
            Container.nothingIsHeld();

            // Under a dot name first: a file that is still being written must not be installed.
            Path hidden = Files.copy(aside, deploy.resolve(".device.blk.jar"));
            Files.move(hidden, jar, StandardCopyOption.ATOMIC_MOVE);
            BlockDevice disk = container.disk("blk0");
            assertNotSame(last, disk);
            read(disk, 1);
            writeAndReadBack(disk, 1);
            last = disk;
        }
    }

    @Test
    void theDriverIsReplacedUnderLoad() throws Exception {
        container.declareExport("file:" + image(), "mmio:hot");
        container.declareAttachment("mmio:hot", "blk0");
        Traffic traffic =
                new Traffic(() -> container.disk("blk0"), 0, BLOCKS, true)
                        .outlivingTheDriver()
                        .start();
        Bundle driver = container.bundle(Container.DRIVER);
        for (int round = 0; round < 5; round++) {
            traffic.awaitMore(1000);
            driver.stop();
            assertNull(container.diskNow("blk0"));
            driver.update();
            driver.start();
        }
        traffic.awaitMore(1000);
        traffic.stop();
    }

    @Test
    void theTransportIsReplacedUnderLoadAndNobodyNotices() throws Exception {
        container.declareExport("ram:16MiB", "mmio:hot");
        container.declareAttachment("mmio:hot", "blk0");
        BlockDevice disk = container.disk("blk0");
        Traffic shared = new Traffic(() -> disk, 0, BLOCKS, true).start();
        Traffic heap = new Traffic(() -> disk, BLOCKS, BLOCKS, false).start();
        for (int round = 1; round <= 5; round++) {
            shared.awaitMore(500);
            heap.awaitMore(500);
            container.bundle(Container.MMIO).update();
            assertSame(disk, container.diskNow("blk0"), "the service consumers hold");
        }
        shared.awaitMore(500);
        heap.awaitMore(500);
        shared.stop();
        heap.stop();
        // Consumers go on a moment before it is counted.
        Wait.until("5 swaps", () -> container.snapshot("blk0").swaps() == 5);
        DeviceSnapshot device = container.snapshot("blk0");
        assertNull(device.queues().getFirst().broken());
    }

    @Test
    void aTransportThatStopsLeavesNothingOfItsExports() throws Exception {
        String address = "vhost-user:" + folder.resolve("core.sock");
        container.declareExport("ram:1MiB", address);
        Wait.until("the export", () -> Files.exists(folder.resolve("core.sock")));
        // Somebody's who does not close it, as the core does.
        Path foreign = folder.resolve("foreign.sock");
        container.exporter("vhost-user").export(foreign.toString(), new TestDevice(1, 8));
        container.bundle(Container.VHOST_USER).stop();
        Container.nothingIsHeld();
        assertFalse(Files.exists(foreign));
        assertTrue(
                Container.threads().stream().noneMatch(name -> name.startsWith("virtio-vhost")),
                () -> Container.threads().toString());
        assertNotNull(container.bus().exports().getFirst().reason());
        container.bundle(Container.VHOST_USER).start();
        Wait.until("the export", () -> container.bus().exports().getFirst().reason() == null);
    }

    @Test
    void theBackendsAreReplacedUnderLoadAndNobodyNotices() throws Exception {
        container.declareExport("file:" + image(), "mmio:hot");
        container.declareAttachment("mmio:hot", "blk0");
        BlockDevice disk = container.disk("blk0");
        Traffic traffic = new Traffic(() -> disk, 0, BLOCKS, false).start();
        for (int round = 0; round < 5; round++) {
            traffic.awaitMore(500);
            container.bundle(Container.BACKENDS).update();
            assertSame(disk, container.diskNow("blk0"), "the service consumers hold");
        }
        traffic.awaitMore(500);
        traffic.stop();
    }

    @Test
    void theCoreIsReplacedUnderLoad() throws Exception {
        container.declareExport("file:" + image(), "mmio:hot");
        container.declareAttachment("mmio:hot", "blk0");
        Traffic traffic =
                new Traffic(() -> container.disk("blk0"), 0, BLOCKS, true)
                        .outlivingTheDriver()
                        .start();
        for (int round = 0; round < 3; round++) {
            traffic.awaitMore(500);
            container.bundle(Container.CORE).update();
        }
        traffic.awaitMore(500);
        traffic.stop();
        assertFalse(container.bus().devices().isEmpty());
        assertNotNull(container.snapshot("blk0").driver());
    }

    private Path image() throws Exception {
        Path image = folder.resolve("disk.img");
        Files.write(image, new byte[8 << 20]);
        return image;
    }

    private static void writeAndReadBack(BlockDevice disk, int content) throws Exception {
        byte[] block = new byte[4096];
        java.util.Arrays.fill(block, (byte) content);
        disk.write(8192, MemorySegment.ofArray(block)).get(10, TimeUnit.SECONDS);
        read(disk, content);
    }

    private static void read(BlockDevice disk, int content) throws Exception {
        byte[] found = new byte[4096];
        disk.read(8192, MemorySegment.ofArray(found)).get(10, TimeUnit.SECONDS);
        byte[] expected = new byte[4096];
        java.util.Arrays.fill(expected, (byte) content);
        assertEquals(-1, MemorySegment.ofArray(expected).mismatch(MemorySegment.ofArray(found)));
    }
}
