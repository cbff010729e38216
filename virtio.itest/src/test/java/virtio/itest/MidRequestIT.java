package virtio.itest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.osgi.framework.ServiceReference;
import org.osgi.framework.ServiceRegistration;

import virtio.api.VirtioException;
import virtio.api.backend.BackendProvider;
import virtio.api.block.BlockDevice;
import virtio.api.status.DeviceSnapshot.State;

import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/**
 * A bundle stops while requests are in flight: each ends, by completing later or by an error that
 * names the reason.
 */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public class MidRequestIT extends ContainerTest {
    private static final int REQUESTS = 32;
    private static final int BLOCK_BYTES = 4096;

    private Path image;
    private String address;
    private HeldBackends backends;
    private ServiceRegistration<BackendProvider> registration;
    private final List<byte[]> contents = new ArrayList<>();
    private final List<CompletableFuture<Void>> requests = new ArrayList<>();

    @BeforeEach
    void setUp() throws Exception {
        container.configureBus(20_000, 200);
        image = folder.resolve("disk.img");
        Files.write(image, new byte[1 << 20]);
        register();
    }

    private void register() throws Exception {
        ServiceReference<BackendProvider> files =
                context.getServiceReferences(BackendProvider.class, null).stream()
                        .filter(found -> context.getService(found).name().equals("file"))
                        .findFirst()
                        .orElseThrow();
        backends = new HeldBackends(context.getService(files));
        registration = context.registerService(BackendProvider.class, backends, null);
    }

    @AfterEach
    void nobodyHoldsRequests() throws Exception {
        backends.release();
        container.clear();
        registration.unregister();
    }

    /** A disk with requests in flight that will not be served. */
    private BlockDevice busyDisk(String transport) throws Exception {
        address =
                transport.equals(Container.MMIO)
                        ? "mmio:held"
                        : "vhost-user:" + folder.resolve("held.sock");
        container.declareExport("held:" + image, address);
        container.declareAttachment(address, "blk0");
        BlockDevice disk = container.disk("blk0");
        backends.hold();
        for (int i = 0; i < REQUESTS; i++) {
            byte[] content = new byte[BLOCK_BYTES];
            Arrays.fill(content, (byte) (i + 1));
            contents.add(content);
            requests.add(
                    disk.write((long) i * BLOCK_BYTES, MemorySegment.ofArray(content.clone())));
        }
        requests.add(disk.flush());
        Wait.until(
                "requests in flight",
                () ->
                        container.snapshot("blk0").queues().stream()
                                .anyMatch(queue -> queue.added() > REQUESTS));
        assertTrue(requests.stream().noneMatch(CompletableFuture::isDone));
        return disk;
    }

    private void everyRequestSucceeds() throws Exception {
        for (CompletableFuture<Void> request : requests) {
            request.get(15, TimeUnit.SECONDS);
        }
        byte[] stored = Files.readAllBytes(image);
        for (int i = 0; i < REQUESTS; i++) {
            byte[] block = Arrays.copyOfRange(stored, i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
            assertTrue(Arrays.equals(contents.get(i), block), "block " + i);
        }
    }

    private void everyRequestFailsNaming(String reason) throws Exception {
        for (CompletableFuture<Void> request : requests) {
            failsNaming(reason, request);
        }
    }

    private static void failsNaming(String reason, CompletableFuture<Void> request) {
        ExecutionException thrown =
                assertThrows(ExecutionException.class, () -> request.get(15, TimeUnit.SECONDS));
        assertSame(VirtioException.class, thrown.getCause().getClass());
        assertTrue(thrown.getCause().getMessage().contains(reason), thrown.getCause().getMessage());
    }

    @Test
    void aTransportThatStopsAndStartsCostsNoRequest() throws Exception {
        stopAndStart(Container.MMIO);
    }

    @Test
    void vhostUserThatStopsAndStartsCostsNoRequest() throws Exception {
        stopAndStart(Container.VHOST_USER);
    }

    private void stopAndStart(String transport) throws Exception {
        BlockDevice disk = busyDisk(transport);
        container.bundle(transport).stop();
        assertEquals(State.FROZEN, container.snapshot("blk0").state());
        String reason = container.snapshot("blk0").reason();
        assertTrue(reason.contains(address.substring(0, address.indexOf(':'))), reason);
        assertSame(disk, container.diskNow("blk0"));
        assertTrue(requests.stream().noneMatch(CompletableFuture::isDone), "they wait");
        container.bundle(transport).start();
        backends.release();
        everyRequestSucceeds();
    }

    @Test
    void aBackendThatLeavesAndComesBackCostsNoRequest() throws Exception {
        busyDisk(Container.MMIO);
        registration.unregister();
        container.awaitState("blk0", State.FROZEN);
        assertTrue(requests.stream().noneMatch(CompletableFuture::isDone), "they wait");
        register();
        everyRequestSucceeds();
    }

    @Test
    void aTransportThatStaysAwayFailsWhatWaits() throws Exception {
        container.configureBus(500, 100);
        BlockDevice disk = busyDisk(Container.MMIO);
        container.bundle(Container.MMIO).stop();
        everyRequestFailsNaming("not back after 500 ms");
        container.awaitState("blk0", State.ABANDONED);
        failsNaming("not back after 500 ms", disk.flush());

        backends.release();
        container.bundle(Container.MMIO).start();
        container.awaitState("blk0", State.ACTIVE);
        disk.flush().get(10, TimeUnit.SECONDS);
        assertSame(disk, container.diskNow("blk0"), "it works again");
    }

    @Test
    void aDriverThatStopsFailsWhatIsInFlight() throws Exception {
        BlockDevice disk = busyDisk(Container.MMIO);
        container.bundle(Container.DRIVER).stop();
        everyRequestFailsNaming("blk0");
        assertNull(container.diskNow("blk0"));
        failsNaming("blk0", disk.flush());
        assertFalse(
                Arrays.equals(
                        contents.getFirst(),
                        Arrays.copyOf(Files.readAllBytes(image), BLOCK_BYTES)));

        backends.release();
        container.bundle(Container.DRIVER).start();
        container.disk("blk0").flush().get(10, TimeUnit.SECONDS);
    }

    @Test
    void aCoreThatStopsFailsWhatIsInFlight() throws Exception {
        BlockDevice disk = busyDisk(Container.MMIO);
        container.bundle(Container.CORE).stop();
        everyRequestFailsNaming("blk0");
        assertNull(container.diskNow("blk0"));
        failsNaming("blk0", disk.flush());

        backends.release();
        container.bundle(Container.CORE).start();
        container.disk("blk0").flush().get(10, TimeUnit.SECONDS);
    }

    @Test
    void aDriverDrainsWhatTheDeviceStillServes() throws Exception {
        container.configureBus(20_000, 10_000);
        busyDisk(Container.MMIO);
        Thread later =
                Thread.ofPlatform()
                        .start(
                                () -> {
                                    try {
                                        Wait.until(
                                                "the driver to freeze",
                                                () ->
                                                        Thread.getAllStackTraces().keySet().stream()
                                                                .anyMatch(
                                                                        t ->
                                                                                t.getName()
                                                                                        .equals(
                                                                                                "virtio-blk0")));
                                        backends.release();
                                    } catch (Exception e) {
                                        throw new AssertionError(e);
                                    }
                                });
        container.bundle(Container.DRIVER).stop();
        later.join();
        everyRequestSucceeds();
    }
}
