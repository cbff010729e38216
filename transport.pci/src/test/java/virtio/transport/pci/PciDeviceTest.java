package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.tck.TestDevice;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The device end, register by register, with no driver end of ours in the way. */
@Timeout(30)
class PciDeviceTest extends BareDriver {
    @Test
    @Tag("DEV-PCI-002")
    @Tag("DEV-PCI-003")
    @Tag("DEV-PCI-005")
    @Tag("DEV-PCI-006")
    @Tag("DEV-PCI-007")
    void identityIsThatOfAModernDevice() {
        assertEquals(0x1af4, config(0, 2));
        assertEquals(0x1042, config(2, 2));
        assertTrue(config(8, 1) >= 1);
        assertTrue(config(0x2e, 2) >= 0x40);
        assertEquals(0x1042_1af4, config(0, 4));
    }

    @Test
    @Tag("DEV-PCI-009")
    @Tag("DEV-PCI-012")
    @Tag("DEV-PCI-013")
    @Tag("DEV-PCI-028")
    @Tag("DEV-PCI-031")
    @Tag("DEV-PCI-033")
    @Tag("DEV-PCI-034")
    @Tag("DEV-PCI-035")
    @Tag("DEV-PCI-037")
    @Tag("DEV-PCI-042")
    @Tag("DEV-PCI-043")
    @Tag("DEV-PCI-048")
    void everyStructureIsThereAndWithinItsBar() {
        int[] least = {0, 60, 8, 1, 12};
        for (int type = 1; type <= 4; type++) {
            int at = capability(9, type);
            assertNotEquals(0, at, "capability of type " + type);
            assertTrue(config(at + 2, 1) >= (type == 2 ? 20 : 16), "length of type " + type);
            int offset = config(at + 8, 4);
            int length = config(at + 12, 4);
            assertEquals(0, offset % 4);
            assertTrue(length >= least[type], "bytes of type " + type);
            assertTrue(offset + length <= function.barBytes(config(at + 4, 1)));
        }
        assertEquals(4, config(capability(9, 2) + 16, 4), "multiplier");
        assertEquals(12, config(capability(9, 4) + 12, 4), "bytes of configuration");
        assertNotEquals(0, capability(9, 5));
        EmulatedFunction without =
                new EmulatedFunction("pci:other", new TestDevice(1, 0), 1, () -> {});
        int types = 0;
        for (int at = without.readConfig(0x34, 1); at != 0; at = without.readConfig(at + 1, 1)) {
            types |= without.readConfig(at, 1) == 9 ? 1 << without.readConfig(at + 3, 1) : 0;
        }
        assertEquals(0b101110, types, "no device configuration where there is none");
    }

    @Test
    @Tag("DEV-PCI-001")
    void barsTellTheirSizeAndAnswerOnlyWhenEnabled() {
        config(0x10, 4, -1);
        assertEquals(function.barBytes(0), -(config(0x10, 4) & ~15));
        config(0x18, 4, -1);
        assertEquals(0, config(0x18, 4), "a BAR that is not there");
        assertEquals(2, read(18, 2));
        config(4, 2, 0);
        assertEquals(0xffff, read(18, 2), "memory access is off");
        status(1);
        config(4, 2, PciRegisters.COMMAND_MEMORY);
        assertEquals(0, status());
    }

    @Test
    @Tag("DEV-PCI-014")
    @Tag("DEV-PCI-015")
    void featuresAreShownInFourWords() {
        assertEquals(1 << 3, offeredWord(0));
        Features second = Features.ofWords((long) offeredWord(1) << 32);
        assertTrue(second.has(Feature.VERSION_1));
        assertTrue(second.has(Feature.RING_RESET));
        assertEquals(1 << 70 - 64, offeredWord(2));
        assertEquals(1 << 126 - 96, offeredWord(3));
        assertEquals(0, offeredWord(4));
        assertEquals(0, offeredWord(-1));
        negotiate(3, 126);
        assertEquals(Features.of(3, 126, Feature.VERSION_1), device.accepted());
        write(8, 4, 3);
        assertEquals(1 << 30, read(12, 4));
        write(8, 4, 4);
        assertEquals(0, read(12, 4));
    }

    @Test
    @Tag("DEV-PCI-008")
    void longFieldsAreAccessedByHalves() {
        assertEquals(0x07060504, access(4, 4, 4));
        assertEquals(0x03020100, access(4, 0, 4));
        negotiate();
        write(22, 2, 0);
        write(36, 4, 0x12);
        write(32, 4, 0x9000_0000);
        write(40, 4, 0xffff_f000);
        write(44, 4, 1);
        write(48, 4, 0x3000);
        assertEquals(0x12, read(36, 4));
        enable(0);
        write(28, 2, 0);
        assertEquals(1, read(28, 2), "a written 0 disables no queue");
        write(32, 4, 0);
        assertEquals(0x9000_0000, read(32, 4), "a live queue's address is not to be written");
        TestDevice.Started started = device.queue(0);
        assertEquals(64, started.layout().size());
        assertEquals(0x12_9000_0000L, started.layout().descriptorArea());
        assertEquals(0x1_ffff_f000L, started.layout().driverArea());
        assertEquals(0x3000, started.layout().deviceArea());
    }

    @Test
    @Tag("DEV-PCI-017")
    void configGenerationChangesWithTheConfiguration() {
        int before = read(21, 1);
        assertEquals(before, read(21, 1));
        device.changeConfig(3, 99);
        assertNotEquals(before, read(21, 1));
        assertEquals(99 << 24 | 0x020100, access(4, 0, 4));
    }

    @Test
    @Tag("DEV-PCI-025")
    @Tag("DEV-PCI-026")
    void queueThatIsNotThereHasSizeZeroAndIgnoresWrites() {
        negotiate();
        write(22, 2, 1);
        assertEquals(128, read(24, 2));
        assertEquals(2, read(18, 2));
        for (int select : new int[] {2, 65_535}) {
            write(22, 2, select);
            write(24, 2, 8);
            write(28, 2, 1);
            write(58, 2, 1);
            for (int offset = 24; offset < 60; offset += 2) {
                assertEquals(0, read(offset, 2), "register " + offset + " of queue " + select);
            }
        }
    }

    @Test
    @Tag("DEV-PCI-018")
    @Tag("DEV-PCI-019")
    @Tag("DEV-PCI-020")
    @Tag("DEV-PCI-057")
    void resetDisablesQueuesAndUnmapsVectors() {
        write(16, 2, 1);
        write(22, 2, 0);
        write(26, 2, 2);
        run(Feature.RING_RESET);
        assertEquals(2, read(26, 2));
        device.queue(0).export().interrupt(0);
        status(0);
        assertEquals(0, status());
        assertEquals(0, access(3, 0, 1));
        assertEquals(NO_VECTOR, read(16, 2));
        for (int queue = 0; queue < 2; queue++) {
            write(22, 2, queue);
            assertEquals(0, read(28, 2));
            assertEquals(0, read(58, 2));
            assertEquals(128, read(24, 2), "the most it can have");
            assertEquals(NO_VECTOR, read(26, 2));
            assertNull(device.queue(queue));
        }
    }

    @Test
    @Tag("DEV-PCI-021")
    @Tag("DEV-PCI-022")
    @Tag("DEV-PCI-023")
    @Tag("DEV-PCI-024")
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
        access(2, 0, 2, 0);
        assertTrue(entered.await(10, TimeUnit.SECONDS));
        Thread resetter = Thread.ofPlatform().start(() -> write(58, 2, 1));
        while (read(58, 2) == 0) {
            Thread.onSpinWait();
        }
        assertTrue(resetter.isAlive(), "the reset did not wait for the queue");
        leave.countDown();
        resetter.join(10_000);
        assertEquals(0, read(58, 2));
        assertEquals(0, read(28, 2));
        assertNull(device.queue(0));
        enable(0);
        assertEquals(0, read(58, 2));
    }

    @Test
    @Tag("DEV-PCI-032")
    @Tag("DEV-PCI-036")
    void everyQueueIsNotifiedAtItsOwnPlace() {
        run(Feature.NOTIFICATION_DATA);
        enable(1);
        int seen = 0;
        while (seen != 3) {
            seen |= 1 << device.awaitNotified().queue();
        }
        device.forgetNotified();
        for (int i = 0; i < 100; i++) {
            int queue = i % 2;
            write(22, 2, queue);
            int offset = read(30, 2) * 4;
            assertTrue(offset + 4 <= config(capability(9, 2) + 12, 4));
            access(2, offset, 4, queue | i << 16);
            assertEquals(queue, device.awaitNotified().queue());
        }
    }

    @Test
    @Tag("DEV-PCI-038")
    @Tag("DEV-PCI-039")
    @Tag("DEV-PCI-040")
    @Tag("DEV-PCI-041")
    void withThePinTheStatusSaysWhatHappenedUntilItIsRead() {
        function.enablePin();
        run();
        assertEquals(0, config(6, 2) & PciRegisters.STATUS_INTERRUPT);
        device.queue(0).export().interrupt(0);
        assertEquals(PciFunction.PIN, interrupts.poll());
        assertNotEquals(0, config(6, 2) & PciRegisters.STATUS_INTERRUPT);
        device.queue(0).export().configChanged();
        assertEquals(PciFunction.PIN, interrupts.poll());
        assertEquals(3, access(3, 0, 1));
        assertEquals(0, access(3, 0, 1));
        assertEquals(0, config(6, 2) & PciRegisters.STATUS_INTERRUPT);
        config(4, 2, config(4, 2) | PciRegisters.COMMAND_INTX_DISABLE);
        device.queue(0).export().interrupt(0);
        assertNull(interrupts.poll(), "the pin is disabled");
    }

    @Test
    @Tag("DEV-PCI-051")
    @Tag("DEV-PCI-052")
    @Tag("DEV-PCI-054")
    @Tag("DEV-PCI-055")
    @Tag("DEV-PCI-056")
    @Tag("DEV-PCI-058")
    @Tag("DEV-PCI-059")
    void everyEventIsMappedToEveryVectorAndToNoOther() {
        assertEquals(2, config(capability(MSIX, 0) + 2, 2) & 0x7ff, "three vectors");
        negotiate();
        for (int vector = 0; vector < 3; vector++) {
            write(16, 2, vector);
            assertEquals(vector, read(16, 2));
            for (int queue = 0; queue < 2; queue++) {
                write(22, 2, queue);
                write(26, 2, vector);
                assertEquals(vector, read(26, 2));
            }
        }
        for (int refused : new int[] {3, 0x7ff, 0xfffe, NO_VECTOR}) {
            write(16, 2, refused);
            assertEquals(NO_VECTOR, read(16, 2));
            write(26, 2, refused);
            assertEquals(NO_VECTOR, read(26, 2));
        }
    }

    @Test
    @Tag("DEV-PCI-060")
    @Tag("DEV-PCI-061")
    void messagesGoToTheVectorOfTheEventAndNowhereWithoutOne() {
        function.enableMsix(3);
        run();
        write(22, 2, 0);
        device.queue(0).export().interrupt(0);
        device.queue(0).export().configChanged();
        assertNull(interrupts.poll(), "no vector is mapped");
        assertEquals(0, config(6, 2) & PciRegisters.STATUS_INTERRUPT, "no pin with MSI-X");
        write(26, 2, 2);
        write(16, 2, 1);
        device.queue(0).export().interrupt(0);
        assertEquals(2, interrupts.poll());
        assertEquals(2, access(3, 0, 1), "of queues the status says nothing");
        device.queue(0).export().configChanged();
        assertEquals(1, interrupts.poll());
        assertEquals(2, access(3, 0, 1), "of the configuration it does");
        config(4, 2, PciRegisters.COMMAND_MEMORY);
        device.queue(0).export().interrupt(0);
        assertNull(interrupts.poll(), "a message without bus mastering");
    }

    @Test
    void maskedVectorIsPendingAndSentWhenItIsUnmasked() throws Exception {
        function.enableMsix(3);
        run();
        write(22, 2, 0);
        write(26, 2, 2);
        int at = capability(MSIX, 0);
        int table = config(at + 4, 4);
        int pending = config(at + 8, 4);
        assertEquals(table & 7, pending & 7);
        int bar = table & 7;
        function.write(bar, (table & ~7) + 2 * 16 + 12, 4, 1);
        device.queue(0).export().interrupt(0);
        assertNull(interrupts.poll());
        assertEquals(1 << 2, function.read(bar, pending & ~7, 4));
        function.write(bar, (table & ~7) + 2 * 16 + 12, 4, 0);
        assertEquals(2, interrupts.poll(10, TimeUnit.SECONDS));
        assertEquals(0, function.read(bar, pending & ~7, 4));
        config(at + 2, 2, 0xc000);
        device.queue(0).export().interrupt(0);
        assertNull(interrupts.poll(), "all are masked");
        config(at + 2, 2, 0x8000);
        assertEquals(2, interrupts.poll(10, TimeUnit.SECONDS));
    }

    @Test
    @Tag("DEV-PCI-049")
    @Tag("DEV-PCI-050")
    void barsAreReachedThroughConfigurationSpace() {
        int at = capability(9, 5);
        config(at + 4, 1, config(capability(9, 1) + 4, 1));
        config(at + 8, 4, 20);
        config(at + 12, 4, 1);
        config(at + 16, 1, DeviceStatus.ACKNOWLEDGE);
        assertEquals(DeviceStatus.ACKNOWLEDGE, status());
        assertEquals(DeviceStatus.ACKNOWLEDGE, config(at + 16, 1));
        config(at + 8, 4, config(capability(9, 4) + 8, 4) + 4);
        config(at + 12, 4, 4);
        assertEquals(0x07060504, config(at + 16, 4));
        for (int[] bad : new int[][] {{6, 0, 4}, {2, 0, 4}, {0, 2, 4}, {0, 0, 3}, {0, -4, 4}}) {
            config(at + 4, 1, bad[0]);
            config(at + 8, 4, bad[1]);
            config(at + 12, 4, bad[2]);
            config(at + 16, 4, 0);
            assertEquals(-1, config(at + 16, 4));
        }
        assertEquals(DeviceStatus.ACKNOWLEDGE, status());
    }

    @Test
    @Tag("DEV-CORE-001")
    void nothingIsServedBeforeDriverOkAndBusMastering() {
        config(4, 2, PciRegisters.COMMAND_MEMORY);
        run();
        access(2, 0, 2, 0);
        assertEquals(0, device.forgetNotified());
        config(4, 2, PciRegisters.COMMAND_MEMORY | PciRegisters.COMMAND_BUS_MASTER);
        assertEquals(0, device.awaitNotified().queue());
    }

    @Test
    void withdrawnFunctionReadsAsAllOnes() {
        run();
        function.close();
        assertTrue(isGone.get());
        assertEquals(0xffff, config(0, 2));
        assertEquals(0xff, function.read(0, 20, 1));
        function.write(0, 20, 1, 1);
        assertEquals(1, device.resets());
    }
}
