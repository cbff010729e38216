package virtio.tck;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.transport.Candidate;
import virtio.api.transport.Export;
import virtio.api.transport.Transport;

/**
 * What a transport promises about addresses, the device status, features, configuration and the end
 * of a device; queues are {@link QueueContract}'s.
 */
public abstract class TransportContract extends Contract {
    private static final int CONFIG_BYTES = 24;

    /** For subclasses. */
    protected TransportContract() {}

    private Driven drive() throws VirtioException {
        return drive(new TestDevice(2, CONFIG_BYTES));
    }

    @Test
    void bothEndsHaveTheSameName() {
        assertEquals(subject.provider().name(), subject.exporter().name());
    }

    @Test
    void deviceTypeReachesTheDriver() throws Exception {
        assertEquals(DeviceType.BLOCK, drive().transport.deviceType());
    }

    @Test
    @Tag("DEV-CORE-022")
    void version1IsOffered() throws Exception {
        assertTrue(drive().transport.offered().has(Feature.VERSION_1));
    }

    @Test
    void offeredFeaturesReachTheDriver() throws Exception {
        Features own = Features.of(0, 5, 23, Feature.VERSION_1).with(highBits());
        Driven driven = drive(new TestDevice(1, 0).offer(own));
        assertEquals(Features.NONE, own.andNot(driven.transport.offered()), "lost on the way");
    }

    @Test
    @Tag("DEV-CORE-005")
    void acceptedFeaturesReachTheDevice() throws Exception {
        Features own = Features.of(0, 5, 23, Feature.VERSION_1).with(highBits());
        Driven driven = drive(new TestDevice(1, 0).offer(own));
        driven.negotiate(own.without(5));
        assertNotEquals(0, driven.transport.status() & DeviceStatus.FEATURES_OK);
        Driven.await(() -> driven.device.accepted() != null, "features at the device");
        assertEquals(own.without(5), driven.device.accepted().and(own));
    }

    /** Device type features above those reserved for ring and transport, as far as they go. */
    private int[] highBits() {
        return Features.of(50, 63, 64, 95, 96, 127).stream()
                .filter(bit -> bit < subject.featureBits())
                .toArray();
    }

    @Test
    @Tag("DRV-CORE-040")
    @Tag("DEV-CORE-030")
    void whatTheTransportCannotCarryIsNotOffered() throws Exception {
        int first = subject.featureBits();
        Driven driven = drive(new TestDevice(1, 0).offer(Features.of(Feature.VERSION_1, first)));
        assertFalse(driven.transport.offered().has(first));
        assertThrows(
                VirtioException.class,
                () -> {
                    driven.negotiate(Features.of(Feature.VERSION_1, first));
                    if ((driven.transport.status() & DeviceStatus.FEATURES_OK) == 0) {
                        throw new VirtioException("FEATURES_OK stayed off");
                    }
                },
                "accepting bit " + first);
    }

    @Test
    @Tag("DEV-CORE-005")
    void featuresOkStaysOffWhenTheDeviceRefuses() throws Exception {
        Driven driven = drive();
        driven.device.refuseFeatures(true);
        try {
            driven.negotiate(Features.of(Feature.VERSION_1));
        } catch (VirtioException e) {
            return;
        }
        assertEquals(0, driven.transport.status() & DeviceStatus.FEATURES_OK);
    }

    @Test
    @Tag("DEV-CORE-007")
    @Tag("DRV-CORE-003")
    void theSameFeaturesAreAcceptedAgainAfterAReset() throws Exception {
        Driven driven = drive();
        driven.negotiate();
        driven.transport.status(driven.transport.status() | DeviceStatus.FAILED);
        driven.negotiate();
    }

    @Test
    @Tag("DRV-CORE-001")
    void statusBitsReadBack() throws Exception {
        Transport transport = drive().transport;
        transport.status(0);
        transport.status(DeviceStatus.ACKNOWLEDGE);
        assertEquals(DeviceStatus.ACKNOWLEDGE, transport.status());
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        assertEquals(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER, transport.status());
    }

    @Test
    @Tag("DEV-CORE-008")
    @Tag("DRV-CORE-010")
    void resetReadsBackAsZero() throws Exception {
        Driven driven = drive().run(0);
        driven.started(0);
        driven.transport.status(0);
        assertEquals(0, driven.transport.status());
        assertNull(driven.device.queue(0), "queue of a device that was reset");
    }

    @Test
    @Tag("DEV-CORE-010")
    void configurationIsReadableBeforeFeaturesOk() throws Exception {
        Driven driven = drive();
        driven.transport.status(0);
        byte[] four = new byte[4];
        driven.transport.readConfig(8, four);
        assertArrayEquals(new byte[] {8, 9, 10, 11}, four);
    }

    @Test
    @Tag("DRV-MMIO-003")
    void configurationIsReadInEveryLengthAndAlignment() throws Exception {
        Transport transport = drive().transport;
        for (int length = 1; length <= CONFIG_BYTES; length++) {
            for (int offset = 0; offset + length <= CONFIG_BYTES; offset++) {
                byte[] bytes = new byte[length];
                transport.readConfig(offset, bytes);
                for (int i = 0; i < length; i++) {
                    assertEquals(offset + i, bytes[i], length + " bytes at " + offset);
                }
            }
        }
    }

    @Test
    void configurationIsWritten() throws Exception {
        assumeSaid(TransportUnderTest.Unsaid.CONFIG_WRITES);
        Driven driven = drive();
        driven.negotiate();
        driven.transport.writeConfig(4, new byte[] {(byte) 0xfe, 1, (byte) 0x80, 3});
        driven.transport.writeConfig(13, new byte[] {77});
        byte[] back = new byte[4];
        driven.transport.readConfig(4, back);
        assertArrayEquals(new byte[] {(byte) 0xfe, 1, (byte) 0x80, 3}, back);
        assertEquals(0xfe, driven.device.config(4));
        assertEquals(0x80, driven.device.config(6));
        assertEquals(77, driven.device.config(13));
        assertEquals(12, driven.device.config(12));
    }

    @Test
    void configurationBeyondTheDevicesIsAnErrorThatNamesIt() throws Exception {
        Transport transport = drive().transport;
        for (int offset : new int[] {CONFIG_BYTES, 5000}) {
            VirtioException e =
                    assertThrows(
                            VirtioException.class, () -> transport.readConfig(offset, new byte[4]));
            assertTrue(e.getMessage().contains(String.valueOf(offset)), e.getMessage());
        }
        assertThrows(VirtioException.class, () -> transport.readConfig(-4, new byte[4]));
        assertThrows(VirtioException.class, () -> transport.writeConfig(5000, new byte[4]));
    }

    @Test
    @Tag("DEV-MMIO-006")
    @Tag("DRV-MMIO-021")
    void changedConfigurationIsNotifiedOfAndHasAnotherGenerationOrContent() throws Exception {
        Driven driven = drive().run(0);
        TestDevice.Started queue = driven.started(0);
        byte[] before = new byte[4];
        driven.transport.readConfig(0, before);
        driven.device.changeConfig(1, 200);
        queue.export().configChanged();
        Driven.await(driven.config, "configChanged");
        byte[] after = new byte[4];
        driven.transport.readConfig(0, after);
        assertEquals((byte) 200, after[1]);
    }

    @Test
    void configurationGenerationSettles() throws Exception {
        Driven driven = drive();
        int first = driven.transport.configGeneration();
        assertEquals(first, driven.transport.configGeneration());
    }

    @Test
    void secondOpenIsRefusedWhileTheFirstLives() throws Exception {
        Driven driven = drive();
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () -> subject.provider().open(subject.address()).close());
        assertNotNull(e.getMessage());
        assertEquals(DeviceType.BLOCK, driven.transport.deviceType(), "the first goes on");
    }

    @Test
    @Tag("DRV-CORE-018")
    void whoClosesWithoutAResetLeavesADeviceThatCanBeOpenedAgain() throws Exception {
        Driven driven = drive().run(0);
        driven.started(0);
        driven.transport.close();
        Driven.await(() -> driven.export.driver() == null, "no driver after close");
        Transport again = subject.provider().open(subject.address());
        try {
            again.status(0);
            assertEquals(0, again.status());
            assertNull(driven.device.queue(0), "queue of the driver that left");
        } finally {
            again.close();
        }
    }

    @Test
    void openWhereNothingIsExportedIsAnErrorThatNamesTheAddress() {
        VirtioException e =
                assertThrows(
                        VirtioException.class, () -> subject.provider().open(subject.address()));
        assertTrue(e.getMessage().contains(subject.address()), e.getMessage());
    }

    @Test
    void takenAddressIsAnErrorThatNamesIt() throws Exception {
        drive();
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () -> subject.exporter().export(subject.address(), new TestDevice(1, 0)));
        assertTrue(e.getMessage().contains(subject.address()), e.getMessage());
    }

    @Test
    void addressIsFreeAgainAfterItsExportClosed() throws Exception {
        subject.exporter().export(subject.address(), new TestDevice(1, 0)).close();
        drive().negotiate();
    }

    @Test
    void discoverySaysOfADrivenDeviceWhyItCannotBeAttached() throws Exception {
        drive();
        String whole = subject.provider().name() + ":" + subject.address();
        for (Candidate candidate : subject.provider().discover()) {
            assertTrue(candidate.address().startsWith(subject.provider().name() + ":"));
            assertNotNull(candidate.description());
            if (candidate.address().equals(whole)) {
                assertNotNull(candidate.unavailable());
            }
        }
    }

    @Test
    void exportSaysWhetherItIsDriven() throws Exception {
        Export export = subject.exporter().export(subject.address(), new TestDevice(1, 0));
        assertNull(export.driver());
        export.close();
        Driven driven = drive().run(0);
        Driven.await(() -> driven.export.driver() != null, "driver() of a driven export");
        driven.transport.close();
        Driven.await(() -> driven.export.driver() == null, "driver() after the driver left");
    }

    @Test
    void withdrawnDeviceIsReportedGoneAndAnswersWithErrors() throws Exception {
        assumeSaid(TransportUnderTest.Unsaid.WITHDRAWAL);
        Driven driven = drive().run(0);
        driven.started(0);
        driven.export.close();
        VirtioException reason = Driven.await(driven.gone, "gone");
        assertNotNull(reason.getMessage());
        Transport transport = driven.transport;
        assertThrows(VirtioException.class, transport::status);
        assertThrows(VirtioException.class, () -> transport.readConfig(0, new byte[4]));
        assertThrows(VirtioException.class, () -> transport.startQueue(1, driven.layout(16)));
        transport.notifyQueue(0, 0);
        transport.close();
        assertTrue(driven.gone.isEmpty(), "gone was reported more than once");
    }

    @Test
    void closeIsIdempotentAtBothEnds() throws Exception {
        Driven driven = drive().run(0);
        driven.transport.close();
        driven.transport.close();
        driven.export.close();
        driven.export.close();
        driven.transport.close();
        driven.transport.notifyQueue(0, 0);
        assertThrows(VirtioException.class, driven.transport::status);
        assertTrue(driven.gone.isEmpty(), "gone was reported to who had closed");
    }
}
