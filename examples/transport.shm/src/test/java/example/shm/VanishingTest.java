package example.shm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.DeviceMapping;
import virtio.api.transport.Export;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.tck.TestDevice;

import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** The other end dies, or somebody takes the file away below both. */
@Timeout(60)
class VanishingTest {
    private static final int READY =
            DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;

    private ShmUnderTest subject;
    private Path file;

    @BeforeEach
    void setUp() throws Exception {
        subject = new ShmUnderTest();
        file = Path.of(subject.address());
    }

    @AfterEach
    void nothingIsLeft() {
        subject.close();
    }

    private Transport open() throws VirtioException {
        return subject.provider().open(subject.address());
    }

    private static BlockingQueue<VirtioException> listen(Transport transport) {
        BlockingQueue<VirtioException> gone = new LinkedBlockingQueue<>();
        transport.listen(
                new Transport.Listener() {
                    @Override
                    public void queueUsed(int queue) {}

                    @Override
                    public void configChanged() {}

                    @Override
                    public void gone(VirtioException reason) {
                        gone.add(reason);
                    }
                });
        return gone;
    }

    private static void await(BooleanSupplier condition, String what) {
        long end = System.nanoTime() + TestDevice.AWAIT_MILLIS * 1_000_000;
        while (!condition.getAsBoolean()) {
            assertTrue(System.nanoTime() - end < 0, "in time: " + what);
            Thread.onSpinWait();
        }
    }

    @Test
    void aDeviceThatDiesIsReportedGoneAndItsFileIsTakenOver() throws Exception {
        BlockingQueue<VirtioException> gone;
        Transport transport;
        String pid;
        try (OtherProcess device = new OtherProcess("device", file)) {
            pid = String.valueOf(device.pid());
            transport = open();
            gone = listen(transport);
            VirtioException taken =
                    assertThrows(
                            VirtioException.class,
                            () ->
                                    subject.exporter()
                                            .export(subject.address(), new TestDevice(1, 0)));
            assertTrue(taken.getMessage().contains(pid), taken.getMessage());
        }
        VirtioException reason = gone.poll(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS);
        assertNotNull(reason, "gone");
        assertTrue(reason.getMessage().contains("process " + pid), reason.getMessage());
        assertThrows(VirtioException.class, transport::status);
        transport.close();
        VirtioException left = assertThrows(VirtioException.class, this::open);
        assertTrue(left.getMessage().contains("left over"), left.getMessage());

        subject.exporter().export(subject.address(), new TestDevice(1, 0));
        open().close();
    }

    @Test
    void aDriverThatDiesIsLetGo() throws Exception {
        TestDevice device = new TestDevice(1, 0);
        Export export = subject.exporter().export(subject.address(), device);
        try (OtherProcess driver = new OtherProcess("driver", file)) {
            String said = "driven by process " + driver.pid();
            assertEquals(said, export.driver());
            assertNotNull(device.accepted());
            VirtioException taken = assertThrows(VirtioException.class, this::open);
            assertTrue(taken.getMessage().contains(said), taken.getMessage());
        }
        await(() -> export.driver() == null, "no driver");
        assertNull(device.accepted(), "the device was reset");
        open().close();
    }

    @Test
    void aDriverThatDiedIsNotWaitedForLong() throws Exception {
        subject.exporter().export(subject.address(), new TestDevice(1, 0));
        new OtherProcess("driver", file).close();
        open().close();
    }

    @Test
    void aFileThatIsCutOffEndsBothEndsAndNotTheProcess() throws Exception {
        TestDevice device = new TestDevice(1, 16);
        Export export = subject.exporter().export(subject.address(), device);
        Transport transport = open();
        BlockingQueue<VirtioException> gone = listen(transport);
        DeviceMapping mapping = new DeviceMapping(subject.mapOps(), transport.mapToken(0));
        CoherentMemory areas = mapping.alloc(3 * 4096);
        transport.accept(Features.of(Feature.VERSION_1));
        transport.status(READY);
        long at = areas.mapHandle();
        transport.startQueue(0, new QueueLayout(64, at, at + 4096, at + 8192));
        transport.status(READY | DeviceStatus.DRIVER_OK);
        assertNotNull(export.driver());

        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
            channel.truncate(0);
        }
        try {
            for (int i = 0; i < 10_000; i++) {
                transport.notifyQueue(0, 0);
                export.interrupt(0);
            }
        } catch (InternalError e) {
            // In compiled code it comes a moment after the access: all that is allowed is that.
        }
        VirtioException reason = gone.poll(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS);
        assertNotNull(reason, "gone");
        assertTrue(reason.getMessage().contains("cut off"), reason.getMessage());
        assertThrows(VirtioException.class, transport::status);
        assertThrows(VirtioException.class, () -> transport.readConfig(0, new byte[4]));
        assertThrows(VirtioException.class, () -> transport.status(0));
        await(() -> export.driver() == null, "no driver");
        assertNull(device.queue(0), "the device was reset");
        mapping.free(areas);
        transport.close();
        export.close();
        assertFalse(Files.exists(file));
    }

    @Test
    void aFileThatIsShortenedBehindWhatIsUsedEndsBothEnds() throws Exception {
        Export export = subject.exporter().export(subject.address(), new TestDevice(1, 16));
        Transport transport = open();
        BlockingQueue<VirtioException> gone = listen(transport);
        await(() -> export.driver() != null, "a driver");
        long bytes = Files.size(file);
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
            channel.truncate(bytes - 1);
        }
        VirtioException reason = gone.poll(TestDevice.AWAIT_MILLIS, TimeUnit.MILLISECONDS);
        assertNotNull(reason, "gone");
        transport.close();
        await(() -> export.driver() == null, "no driver");
        export.close();
    }
}
