package virtio.transport.mmio;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.transport.EmulatedMemory;
import virtio.tck.TestDevice;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/** The device end, register by register, with no driver end of ours in the way. */
@Timeout(30)
class MmioDeviceTest implements RegisterWindow.Driver {
    private static final int FEATURES_OK =
            DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;
    private static final int DRIVER_OK = FEATURES_OK | DeviceStatus.DRIVER_OK;

    private final AtomicInteger interrupts = new AtomicInteger();
    private final AtomicBoolean isGone = new AtomicBoolean();
    private TestDevice device;
    private EmulatedMemory memory;
    private EmulatedWindow window;

    @Override
    public void interrupt() {
        interrupts.getAndIncrement();
    }

    @Override
    public void gone() {
        isGone.set(true);
    }

    @BeforeEach
    void make() throws Exception {
        device =
                new TestDevice(2, 8)
                        .offer(Features.of(3, 70, 126, Feature.VERSION_1))
                        .maxQueueSize(128);
        memory = MmioProvider.memory("test", 1 << 20, 1 << 16);
        window = new EmulatedWindow("test", device, () -> {});
        window.attach(this, memory);
    }

    @AfterEach
    void close() {
        window.close();
        memory.release();
    }

    private int read(int offset) {
        return window.read(offset);
    }

    private void write(int offset, int value) {
        window.write(offset, value);
    }

    private int offeredWord(int sel) {
        write(MmioRegisters.DEVICE_FEATURES_SEL, sel);
        return read(MmioRegisters.DEVICE_FEATURES);
    }

    private void accept(int... words) {
        for (int sel = 0; sel < words.length; sel++) {
            write(MmioRegisters.DRIVER_FEATURES_SEL, sel);
            write(MmioRegisters.DRIVER_FEATURES, words[sel]);
        }
    }

    private void negotiate(int... more) {
        Features features = Features.of(more).with(Feature.VERSION_1);
        accept(
                (int) features.word(0),
                (int) (features.word(0) >>> 32),
                (int) features.word(1),
                (int) (features.word(1) >>> 32));
        write(MmioRegisters.STATUS, FEATURES_OK);
        assertEquals(FEATURES_OK, read(MmioRegisters.STATUS));
    }

    private void enable(int queue) {
        write(MmioRegisters.QUEUE_SEL, queue);
        write(MmioRegisters.QUEUE_SIZE, 64);
        write(MmioRegisters.QUEUE_READY, 1);
        assertEquals(1, read(MmioRegisters.QUEUE_READY));
    }

    private void run(int... features) {
        negotiate(features);
        enable(0);
        write(MmioRegisters.STATUS, DRIVER_OK);
        assertEquals(DRIVER_OK, read(MmioRegisters.STATUS));
    }

    @Test
    @Tag("DEV-MMIO-001")
    @Tag("DEV-MMIO-002")
    void identityIsThatOfAVersion2Device() {
        assertEquals(0x74726976, read(0x000));
        assertEquals(2, read(0x004));
        assertEquals(DeviceType.BLOCK, read(0x008));
        assertNotEquals(0, read(0x00c));
    }

    @Test
    void featuresAreShownInFourWords() {
        assertEquals(1 << 3, offeredWord(0));
        Features second = Features.ofWords((long) offeredWord(1) << 32);
        assertTrue(second.has(Feature.VERSION_1));
        assertTrue(second.has(Feature.RING_RESET));
        assertTrue(second.has(Feature.ACCESS_PLATFORM));
        assertEquals(1 << 70 - 64, offeredWord(2));
        assertEquals(1 << 126 - 96, offeredWord(3));
        assertEquals(0, offeredWord(4));
        assertEquals(0, offeredWord(-1));
    }

    @Test
    @Tag("DEV-CORE-030")
    void whatExistsOnPciOnlyIsNotOffered() {
        device.offer(
                Features.of(
                        Feature.VERSION_1,
                        Feature.SR_IOV,
                        Feature.ADMIN_VQ,
                        Feature.NOTIF_CONFIG_DATA));
        RegisterWindow other = new EmulatedWindow("other", device, () -> {});
        other.write(MmioRegisters.DEVICE_FEATURES_SEL, 1);
        Features high =
                Features.ofWords(
                        Integer.toUnsignedLong(other.read(MmioRegisters.DEVICE_FEATURES)) << 32);
        assertEquals(
                Features.of(
                        Feature.VERSION_1,
                        Feature.ACCESS_PLATFORM,
                        Feature.NOTIFICATION_DATA,
                        Feature.RING_RESET),
                high);
    }

    @Test
    @Tag("DEV-CORE-005")
    void featuresThatWereNotOfferedAreRefused() {
        accept(1 << 4, 1);
        write(MmioRegisters.STATUS, FEATURES_OK);
        assertEquals(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER, read(MmioRegisters.STATUS));
        accept(1 << 3, 1);
        write(MmioRegisters.STATUS, FEATURES_OK);
        assertEquals(FEATURES_OK, read(MmioRegisters.STATUS));
        assertEquals(Features.of(3, Feature.VERSION_1), device.accepted());
    }

    @Test
    void deviceIsNotAskedAboutTheWindowsOwnFeatures() {
        negotiate(3, 126, Feature.RING_RESET, Feature.ACCESS_PLATFORM);
        assertEquals(Features.of(3, 126, Feature.VERSION_1), device.accepted());
    }

    @Test
    void driverOkWithoutFeaturesOkStaysOff() {
        write(MmioRegisters.STATUS, DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER_OK);
        assertEquals(DeviceStatus.ACKNOWLEDGE, read(MmioRegisters.STATUS));
    }

    @Test
    void statusBitsOnlyComeAndNeedsResetIsNotTheDrivers() {
        write(MmioRegisters.STATUS, DeviceStatus.ACKNOWLEDGE | DeviceStatus.DEVICE_NEEDS_RESET);
        write(MmioRegisters.STATUS, DeviceStatus.DRIVER);
        assertEquals(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER, read(MmioRegisters.STATUS));
    }

    @Test
    void featuresAreSettledOnceFeaturesOkIsSet() {
        negotiate(3);
        accept(0, 1);
        write(MmioRegisters.STATUS, DRIVER_OK);
        assertEquals(Features.of(3, Feature.VERSION_1), device.accepted());
        write(MmioRegisters.STATUS, 0);
        write(MmioRegisters.STATUS, FEATURES_OK);
        assertEquals(Features.NONE, device.accepted(), "what was chosen before the reset");
    }

    @Test
    void queueThatIsNotThereHasSizeZeroAndIgnoresWrites() {
        negotiate();
        write(MmioRegisters.QUEUE_SEL, 1);
        assertEquals(128, read(MmioRegisters.QUEUE_SIZE_MAX));
        for (int sel : new int[] {2, 65_536, -1}) {
            write(MmioRegisters.QUEUE_SEL, sel);
            assertEquals(0, read(MmioRegisters.QUEUE_SIZE_MAX));
            write(MmioRegisters.QUEUE_SIZE, 8);
            write(MmioRegisters.QUEUE_READY, 1);
            assertEquals(0, read(MmioRegisters.QUEUE_READY));
            write(MmioRegisters.QUEUE_RESET, 1);
            assertEquals(0, read(MmioRegisters.QUEUE_RESET));
            write(MmioRegisters.QUEUE_NOTIFY, sel);
        }
    }

    @Test
    void queueThatCannotBeStartedReadsAsNotReady() {
        write(MmioRegisters.QUEUE_SIZE, 64);
        write(MmioRegisters.QUEUE_READY, 1);
        assertEquals(0, read(MmioRegisters.QUEUE_READY), "before FEATURES_OK");
        negotiate();
        for (int size : new int[] {0, 129, -1, Integer.MAX_VALUE}) {
            write(MmioRegisters.QUEUE_SIZE, size);
            write(MmioRegisters.QUEUE_READY, 1);
            assertEquals(0, read(MmioRegisters.QUEUE_READY), "size " + size);
        }
        device.refuseQueues("refused by the test");
        write(MmioRegisters.QUEUE_SIZE, 64);
        write(MmioRegisters.QUEUE_READY, 1);
        assertEquals(0, read(MmioRegisters.QUEUE_READY), "refused by the device");
        device.refuseQueues(null);
        enable(0);
    }

    @Test
    void addressesAreMadeOfTwoHalvesAndFixedWhileTheQueueIsReady() {
        negotiate();
        write(MmioRegisters.QUEUE_DESC_HIGH, 0x12);
        write(MmioRegisters.QUEUE_DESC_LOW, 0x9000_0000);
        write(MmioRegisters.QUEUE_DRIVER_LOW, 0xffff_f000);
        write(MmioRegisters.QUEUE_DRIVER_HIGH, 1);
        write(MmioRegisters.QUEUE_DEVICE_LOW, 0x3000);
        enable(0);
        write(MmioRegisters.QUEUE_SIZE, 2);
        write(MmioRegisters.QUEUE_DESC_LOW, 0);
        TestDevice.Started started = device.queue(0);
        assertEquals(64, started.layout().size());
        assertEquals(0x12_9000_0000L, started.layout().descriptorArea());
        assertEquals(0x1_ffff_f000L, started.layout().driverArea());
        assertEquals(0x3000, started.layout().deviceArea());
        write(MmioRegisters.QUEUE_READY, 0);
        assertEquals(0, read(MmioRegisters.QUEUE_READY));
        assertNull(device.queue(0));
        write(MmioRegisters.QUEUE_READY, 1);
        assertEquals(64, device.queue(0).layout().size(), "a write to a live queue's size");
        assertEquals(0x12_9000_0000L, device.queue(0).layout().descriptorArea());
    }

    @Test
    @Tag("DEV-CORE-001")
    @Tag("DEV-MMIO-007")
    void nothingIsServedBeforeDriverOk() {
        AtomicInteger first = new AtomicInteger();
        device.onNotified(queue -> first.compareAndSet(0, read(MmioRegisters.STATUS)));
        negotiate();
        write(MmioRegisters.QUEUE_NOTIFY, 0);
        enable(0);
        write(MmioRegisters.QUEUE_NOTIFY, 0);
        device.queue(0).export().schedule(0);
        device.queue(0).export().interrupt(0);
        device.queue(0).export().configChanged();
        assertEquals(0, read(MmioRegisters.INTERRUPT_STATUS));
        assertEquals(0, interrupts.get());
        write(MmioRegisters.STATUS, DRIVER_OK);
        assertEquals(0, device.awaitNotified().queue(), "what was notified of too early");
        while (first.get() == 0) {
            Thread.onSpinWait();
        }
        assertEquals(DRIVER_OK, first.get(), "status when the queue was first served");
    }

    @Test
    @Tag("DEV-MMIO-003")
    @Tag("DEV-MMIO-004")
    void interruptBitsStandUntilTheyAreAcknowledged() {
        run();
        assertEquals(0, read(MmioRegisters.INTERRUPT_STATUS));
        device.queue(0).export().interrupt(0);
        assertEquals(1, read(MmioRegisters.INTERRUPT_STATUS));
        device.queue(0).export().configChanged();
        assertEquals(3, read(MmioRegisters.INTERRUPT_STATUS));
        assertEquals(3, read(MmioRegisters.INTERRUPT_STATUS), "reading does not clear");
        write(MmioRegisters.INTERRUPT_ACK, 1);
        assertEquals(2, read(MmioRegisters.INTERRUPT_STATUS));
        write(MmioRegisters.INTERRUPT_ACK, -1);
        assertEquals(0, read(MmioRegisters.INTERRUPT_STATUS));
        assertEquals(DRIVER_OK, read(MmioRegisters.STATUS), "acknowledging touches nothing else");
        assertEquals(2, interrupts.get());
    }

    @Test
    @Tag("DEV-CORE-008")
    @Tag("DEV-MMIO-005")
    @Tag("DEV-MMIO-008")
    void resetClearsInterruptsAndQueues() {
        run(Feature.RING_RESET);
        enable(1);
        device.queue(0).export().interrupt(0);
        device.queue(0).export().configChanged();
        write(MmioRegisters.STATUS, 0);
        assertEquals(0, read(MmioRegisters.STATUS));
        assertEquals(0, read(MmioRegisters.INTERRUPT_STATUS));
        for (int queue = 0; queue < 2; queue++) {
            write(MmioRegisters.QUEUE_SEL, queue);
            assertEquals(0, read(MmioRegisters.QUEUE_READY));
            assertEquals(0, read(MmioRegisters.QUEUE_RESET));
            assertNull(device.queue(queue));
        }
    }

    @Test
    @Tag("DEV-MMIO-006")
    void configGenerationChangesWithTheConfiguration() {
        int before = read(MmioRegisters.CONFIG_GENERATION);
        assertEquals(before, read(MmioRegisters.CONFIG_GENERATION));
        device.changeConfig(3, 99);
        assertNotEquals(before, read(MmioRegisters.CONFIG_GENERATION));
        assertEquals(99 << 24 | 0x020100, window.readConfig(0, 4));
    }

    @Test
    @Tag("DEV-MMIO-009")
    @Tag("DEV-MMIO-010")
    @Tag("DEV-MMIO-011")
    @Tag("DEV-MMIO-012")
    void queueResetReadsOneForAsLongAsItGoesOn() throws Exception {
        CountDownLatch entered = new CountDownLatch(1);
        CountDownLatch leave = new CountDownLatch(1);
        device.onNotified(
                queue -> {
                    entered.countDown();
                    try {
                        leave.await();
                    } catch (InterruptedException e) {
                        throw new AssertionError(e);
                    }
                });
        run(Feature.RING_RESET);
        assertEquals(0, read(MmioRegisters.QUEUE_RESET));
        write(MmioRegisters.QUEUE_NOTIFY, 0);
        assertTrue(entered.await(10, TimeUnit.SECONDS));
        Thread resetter = Thread.ofPlatform().start(() -> write(MmioRegisters.QUEUE_RESET, 1));
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (read(MmioRegisters.QUEUE_RESET) == 0 && System.nanoTime() - end < 0) {
            Thread.onSpinWait();
        }
        int meanwhile = read(MmioRegisters.QUEUE_RESET);
        boolean waiting = resetter.isAlive();
        leave.countDown();
        assertEquals(1, meanwhile);
        assertTrue(waiting, "the reset did not wait for the queue");
        resetter.join(10_000);
        assertEquals(0, read(MmioRegisters.QUEUE_RESET));
        assertEquals(0, read(MmioRegisters.QUEUE_READY));
        assertNull(device.queue(0));
        write(MmioRegisters.QUEUE_READY, 1);
        assertEquals(0, read(MmioRegisters.QUEUE_READY), "its size is forgotten");
        enable(0);
        assertEquals(0, read(MmioRegisters.QUEUE_RESET));
    }

    @Test
    void queueResetThatWasNotNegotiatedIsIgnored() {
        run();
        write(MmioRegisters.QUEUE_RESET, 1);
        assertEquals(0, read(MmioRegisters.QUEUE_RESET));
        assertEquals(1, read(MmioRegisters.QUEUE_READY));
        assertNotNull(device.queue(0));
    }

    @Test
    void thereIsNoSharedMemory() {
        write(MmioRegisters.SHM_SEL, 0);
        for (int offset = MmioRegisters.SHM_LEN_LOW; offset <= 0x0bc; offset += 4) {
            assertEquals(-1, read(offset));
        }
    }

    @Test
    void notificationDataIsTakenApartOnlyWhenNegotiated() {
        run(Feature.NOTIFICATION_DATA);
        enable(1);
        drain();
        write(MmioRegisters.QUEUE_NOTIFY, 0x8007_0001);
        assertEquals(1, device.awaitNotified().queue());
        write(MmioRegisters.STATUS, 0);
        run();
        enable(1);
        drain();
        for (int i = 0; i < 500; i++) {
            write(MmioRegisters.QUEUE_NOTIFY, 0x8007_0001);
            write(MmioRegisters.QUEUE_NOTIFY, 0);
            assertEquals(0, device.awaitNotified().queue());
        }
    }

    /** Starting a queue serves it once; waits for both, and leaves nothing behind. */
    private void drain() {
        int seen = 0;
        while (seen != 3) {
            seen |= 1 << device.awaitNotified().queue();
        }
        device.forgetNotified();
    }

    @Test
    @Tag("DEV-CORE-002")
    @Tag("DEV-CORE-003")
    void brokenQueueAsksForAResetAndSaysSo() {
        run();
        device.queue(0).export().queueBroken(0, "by the test");
        assertEquals(DRIVER_OK | DeviceStatus.DEVICE_NEEDS_RESET, read(MmioRegisters.STATUS));
        assertEquals(2, read(MmioRegisters.INTERRUPT_STATUS));
        assertEquals(1, interrupts.get());
        write(MmioRegisters.STATUS, 0);
        assertEquals(0, read(MmioRegisters.STATUS));
    }

    @Test
    void failingBackendBreaksItsQueueOnly() {
        device.onNotified(
                queue -> {
                    if (queue == 0) {
                        throw new IllegalStateException("thrown by the test");
                    }
                });
        run();
        enable(1);
        while ((read(MmioRegisters.STATUS) & DeviceStatus.DEVICE_NEEDS_RESET) == 0) {
            Thread.onSpinWait();
        }
        device.forgetNotified();
        write(MmioRegisters.QUEUE_NOTIFY, 1);
        while (device.awaitNotified().queue() != 1) {
            // The failed queue's.
        }
    }

    @Test
    void withdrawnWindowReadsAsAllOnes() {
        run();
        assertFalse(isGone.get());
        window.close();
        assertTrue(isGone.get());
        assertEquals(-1, read(MmioRegisters.STATUS));
        assertEquals(-1, read(MmioRegisters.MAGIC_VALUE));
        assertEquals(-1, window.readConfig(0, 4));
        write(MmioRegisters.STATUS, 1);
        write(MmioRegisters.QUEUE_NOTIFY, 0);
        assertEquals(1, device.resets());
    }
}
