package virtio.transport.mmio;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.transport.EmulatedMemory;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.tck.TestDevice;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntUnaryOperator;

/** The driver end, access by access, on a window that keeps a record and can be made to lie. */
@Timeout(30)
class MmioDriverTest {
    private static final Set<Integer> READABLE =
            Set.of(
                    0x000, 0x004, 0x008, 0x00c, 0x010, 0x034, 0x044, 0x060, 0x070, 0x0b0, 0x0b4,
                    0x0b8, 0x0bc, 0x0c0, 0x0fc);
    private static final Set<Integer> WRITABLE =
            Set.of(
                    0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x064, 0x070, 0x080, 0x084,
                    0x090, 0x094, 0x0a0, 0x0a4, 0x0ac, 0x0c0);
    private static final int FEATURES_OK =
            DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;

    private final List<String> record = new ArrayList<>();
    private final AtomicInteger used = new AtomicInteger();
    private final AtomicInteger changed = new AtomicInteger();
    private TestDevice device;
    private EmulatedMemory memory;
    private EmulatedWindow window;
    private RecordingWindow recording;
    private MmioTransport transport;

    /** Keeps a record of control accesses, and holds them to the table of registers. */
    private final class RecordingWindow implements RegisterWindow {
        private IntUnaryOperator lie = offset -> -1;

        @Override
        public synchronized int read(int offset) {
            assertTrue(READABLE.contains(offset), "read of 0x%03x".formatted(offset));
            record.add("R%03x".formatted(offset));
            int lied = lie.applyAsInt(offset);
            return lied != -1 ? lied : window.read(offset);
        }

        @Override
        public synchronized void write(int offset, int value) {
            assertTrue(WRITABLE.contains(offset), "write of 0x%03x".formatted(offset));
            record.add("W%03x=%x".formatted(offset, value));
            if (offset == 0x038 || offset >= 0x080 && offset <= 0x0a4) {
                assertEquals(0, window.read(0x044), "write to a queue that is ready");
            }
            window.write(offset, value);
        }

        @Override
        public int configBytes() {
            return window.configBytes();
        }

        @Override
        public int readConfig(int offset, int width) {
            record.add("r%d@%d".formatted(8 * width, offset));
            assertEquals(0, offset % width, "aligned");
            return window.readConfig(offset, width);
        }

        @Override
        public void writeConfig(int offset, int width, int value) {
            record.add("w%d@%d".formatted(8 * width, offset));
            assertEquals(0, offset % width, "aligned");
            window.writeConfig(offset, width, value);
        }

        @Override
        public VirtioException gone() {
            return window.gone();
        }

        @Override
        public void detach(Driver driver) {
            window.detach(driver);
        }
    }

    private void lie(int offset, int... values) {
        AtomicInteger next = new AtomicInteger();
        recording.lie =
                asked ->
                        asked == offset && next.get() < values.length
                                ? values[next.getAndIncrement()]
                                : -1;
    }

    @BeforeEach
    void make() throws Exception {
        device =
                new TestDevice(2, 32).offer(Features.of(1, 65, Feature.VERSION_1)).maxQueueSize(64);
        memory = MmioProvider.memory("test", 1 << 20, 1 << 16);
        window = new EmulatedWindow("test", device, () -> {});
        recording = new RecordingWindow();
    }

    private void open() throws VirtioException {
        transport = new MmioTransport("test", recording, memory);
        window.attach(transport, memory);
        transport.listen(
                new Transport.Listener() {
                    @Override
                    public void queueUsed(int queue) {
                        used.getAndIncrement();
                    }

                    @Override
                    public void configChanged() {
                        changed.getAndIncrement();
                    }

                    @Override
                    public void gone(VirtioException reason) {}
                });
    }

    @AfterEach
    void close() {
        if (transport != null) {
            transport.close();
        } else {
            memory.release();
        }
        window.close();
    }

    private String recorded() {
        String all = String.join(" ", record);
        record.clear();
        return all;
    }

    private void negotiate(int... features) throws VirtioException {
        transport.status(0);
        transport.accept(Features.of(features).with(Feature.VERSION_1));
        transport.status(FEATURES_OK);
        assertEquals(FEATURES_OK, transport.status());
    }

    private QueueLayout layout(int size) {
        CoherentMemory area = memory.alloc(12288);
        return new QueueLayout(
                size, area.mapHandle(), area.mapHandle() + 4096, area.mapHandle() + 8192);
    }

    private void run(int... features) throws VirtioException {
        negotiate(features);
        transport.startQueue(0, layout(64));
        transport.startQueue(1, layout(64));
        transport.status(FEATURES_OK | DeviceStatus.DRIVER_OK);
    }

    private void assertRefused(String part) {
        VirtioException e = assertThrows(VirtioException.class, this::open);
        assertTrue(e.getMessage().contains(part), e.getMessage());
    }

    @Test
    @Tag("DRV-MMIO-017")
    @Tag("DRV-MMIO-018")
    void initialisationBeginsWithTheIdentity() throws Exception {
        open();
        assertEquals("R000 R004 R008", recorded());
    }

    @Test
    @Tag("DRV-MMIO-004")
    void anotherMagicValueIsRefused() {
        lie(0x000, 0x12345678);
        assertRefused("0x12345678");
        assertEquals("R000", recorded());
    }

    @Test
    @Tag("DRV-MMIO-005")
    void anotherVersionIsRefusedByNumber() {
        lie(0x004, 3);
        assertRefused("version 3");
        lie(0x004, 1);
        assertRefused("version 1 (legacy)");
        assertEquals("R000 R004 R000 R004", recorded());
    }

    @Test
    @Tag("DRV-MMIO-006")
    @Tag("DRV-MMIO-018")
    void windowWithoutADeviceIsLeftAlone() {
        lie(0x008, 0);
        assertRefused("no device");
        assertEquals("R000 R004 R008", recorded());
    }

    @Test
    @Tag("DRV-MMIO-007")
    @Tag("DRV-MMIO-008")
    void featureWordsAreSelectedBeforeTheyAreAccessed() throws Exception {
        open();
        recorded();
        assertTrue(transport.offered().has(65));
        assertEquals("W014=0 R010 W014=1 R010 W014=2 R010 W014=3 R010", recorded());
        transport.accept(Features.of(1, 32, 65));
        assertEquals("W024=3 W020=0 W024=2 W020=2 W024=1 W020=1 W024=0 W020=2", recorded());
    }

    /** As QEMU's, which take every other selector for 1. */
    @Test
    @Tag("DRV-MMIO-007")
    void aSecondWordThatIsShownForAllOthersIsTakenOnce() throws Exception {
        open();
        lie(0x010, 7, 1, 1, 1);
        assertEquals(Features.of(0, 1, 2, 32), transport.offered());
    }

    @Test
    @Tag("DRV-MMIO-003")
    void configurationIsAccessedInTheWidthOfItsFields() throws Exception {
        open();
        recorded();
        transport.readConfig(1, new byte[1]);
        transport.readConfig(2, new byte[2]);
        transport.readConfig(4, new byte[4]);
        transport.readConfig(8, new byte[8]);
        assertEquals("r8@1 r16@2 r32@4 r32@8 r32@12", recorded());
        transport.readConfig(0, new byte[6]);
        assertEquals("r8@0 r8@1 r8@2 r8@3 r8@4 r8@5", recorded());
        transport.readConfig(3, new byte[2]);
        assertEquals("r8@3 r8@4", recorded());
        transport.writeConfig(20, new byte[8]);
        transport.writeConfig(30, new byte[] {5});
        assertEquals("w32@20 w32@24 w8@30", recorded());
    }

    @Test
    @Tag("DRV-MMIO-001")
    @Tag("DRV-MMIO-002")
    @Tag("DRV-MMIO-010")
    @Tag("DRV-MMIO-019")
    void aWholeLifeTouchesOnlyWhatTheTableAllows() throws Exception {
        open();
        run(1, Feature.RING_RESET);
        transport.notifyQueue(0, 0);
        device.queue(0).export().interrupt(0);
        device.queue(0).export().configChanged();
        transport.configGeneration();
        assertTrue(transport.stopQueue(0));
        transport.startQueue(0, layout(16));
        transport.status(0);
        String all = recorded();
        for (String shared : new String[] {"W0ac", "R0b0", "R0b4", "R0b8", "R0bc"}) {
            assertFalse(all.contains(shared), "shared memory register " + shared);
        }
    }

    @Test
    void queueIsConfiguredInTheOrderOfTheSpecification() throws Exception {
        open();
        negotiate();
        recorded();
        transport.startQueue(1, new QueueLayout(32, 0x1_2000_0000L, 0x3000, 0xf_ffff_f000L));
        assertEquals(
                "W030=1 R044 R034 W038=20 W080=20000000 W084=1 W090=3000 W094=0"
                        + " W0a0=fffff000 W0a4=f W044=1 R044",
                recorded());
    }

    @Test
    @Tag("DRV-MMIO-009")
    void sizeBeyondTheDevicesIsRefusedBeforeItIsWritten() throws Exception {
        open();
        negotiate();
        recorded();
        VirtioException e =
                assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(128)));
        assertTrue(e.getMessage().contains("128") && e.getMessage().contains("64"));
        assertFalse(recorded().contains("W038"));
    }

    @Test
    void queueThatDoesNotBecomeReadyIsAnError() throws Exception {
        open();
        negotiate();
        device.refuseQueues("refused by the test");
        VirtioException e =
                assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(32)));
        assertTrue(e.getMessage().contains("queue 0"), e.getMessage());
    }

    @Test
    @Tag("DRV-MMIO-014")
    @Tag("DRV-MMIO-015")
    @Tag("DRV-MMIO-016")
    void queueResetIsOverWhenItReadsZero() throws Exception {
        open();
        run(Feature.RING_RESET);
        lie(0x0c0, 1, 1, 1);
        recorded();
        assertTrue(transport.stopQueue(0));
        assertEquals("W030=0 W0c0=1 R0c0 R0c0 R0c0 R0c0", recorded());
        transport.startQueue(0, layout(8));
        assertEquals(8, device.queue(0).layout().size());
    }

    @Test
    void withoutQueueResetAQueueCannotBeStopped() throws Exception {
        open();
        run();
        recorded();
        assertFalse(transport.stopQueue(0));
        assertEquals("", recorded());
    }

    @Test
    @Tag("DRV-CORE-010")
    void resetIsOverWhenStatusReadsZero() throws Exception {
        open();
        lie(0x070, 4, 4);
        recorded();
        transport.status(0);
        assertEquals("W070=0 R070 R070 R070", recorded());
    }

    @Test
    @Tag("DRV-MMIO-021")
    @Tag("DRV-MMIO-022")
    @Tag("DRV-MMIO-023")
    void interruptIsReadAcknowledgedAndGivenToEachQueue() throws Exception {
        open();
        run();
        recorded();
        device.queue(0).export().interrupt(0);
        assertEquals("R060 W064=1 R060", recorded());
        assertEquals(2, used.get(), "each active queue");
        assertEquals(0, changed.get());
        device.queue(0).export().configChanged();
        assertEquals("R060 W064=2 R060", recorded());
        assertEquals(2, used.get());
        assertEquals(1, changed.get());
    }

    @Test
    @Tag("DRV-MMIO-012")
    @Tag("DRV-MMIO-013")
    void undefinedInterruptBitsAreIgnored() throws Exception {
        open();
        run();
        lie(0x060, 0xff_fffd);
        recorded();
        transport.interrupt();
        assertEquals("R060 W064=1 R060", recorded());
        assertEquals(2, used.get());
        assertEquals(0, changed.get());
        lie(0x060, 0xff_fffc);
        transport.interrupt();
        assertEquals("R060", recorded(), "nothing to acknowledge");
    }

    /** Between reading and acknowledging: the line does not fall, so that no edge tells of it. */
    @Test
    void eventOfTheOtherKindMeanwhileIsNotMissed() throws Exception {
        open();
        run();
        AtomicInteger reads = new AtomicInteger();
        recording.lie =
                offset ->
                        offset != 0x060
                                ? -1
                                : switch (reads.getAndIncrement()) {
                                    case 0 -> 1;
                                    case 1 -> 2;
                                    default -> 0;
                                };
        recorded();
        transport.interrupt();
        assertEquals("R060 W064=1 R060 W064=2 R060", recorded());
        assertEquals(2, used.get());
        assertEquals(1, changed.get());
    }

    @Test
    void deviceThatAlwaysInterruptsDoesNotHoldItsThread() throws Exception {
        open();
        run();
        AtomicInteger reads = new AtomicInteger();
        recording.lie = offset -> offset != 0x060 ? -1 : 1 + (reads.getAndIncrement() & 1);
        transport.interrupt();
        assertEquals(2, used.get());
        assertEquals(1, changed.get());
    }

    @Test
    void featureBeyondTheRegistersIsRefusedByNumber() throws Exception {
        open();
        VirtioException e =
                assertThrows(VirtioException.class, () -> transport.accept(Features.of(1, 128)));
        assertTrue(e.getMessage().contains("128"), e.getMessage());
    }

    @Test
    void busAddressIsNotTheAddressInTheProcess() throws Exception {
        open();
        CoherentMemory area = memory.alloc(4096);
        assertFalse(area.mapHandle() == area.segment().address());
        assertEquals(area.segment().address(), memory.translate(area.mapHandle(), 4096, true));
        EmulatedMemory other = MmioProvider.memory("other", 1 << 20, 1 << 16);
        assertEquals(0, other.translate(area.mapHandle(), 1, false), "another device's memory");
        other.release();
        memory.free(area);
    }
}
