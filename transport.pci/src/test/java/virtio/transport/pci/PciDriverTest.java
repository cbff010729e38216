package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
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

import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** The driver end, access by access, on a function that keeps a record and can be made to lie. */
@Timeout(30)
class PciDriverTest {
    private static final int FEATURES_OK =
            DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;

    private final BlockingQueue<String> events = new LinkedBlockingQueue<>();
    private TestDevice device;
    private EmulatedMemory memory;
    private RogueFunction function;
    private PciTransport transport;

    @BeforeEach
    void make() throws Exception {
        make(new TestDevice(3, 32), 4);
    }

    private void make(TestDevice with, int vectors) throws Exception {
        device = with.offer(Features.of(1, 65, Feature.VERSION_1)).maxQueueSize(64);
        memory = PciProvider.memory("test", 1 << 20, 1 << 16);
        EmulatedFunction honest = new EmulatedFunction("pci:test", device, vectors, () -> {});
        function = new RogueFunction(honest);
        transport = new PciTransport("pci:test", function, memory);
        honest.attach(transport, memory);
    }

    /** Anew, with another number of vectors. */
    private void remake(TestDevice with, int vectors) throws Exception {
        close();
        make(with, vectors);
    }

    @AfterEach
    void close() {
        transport.close();
        function.honest.close();
    }

    private QueueLayout layout(int size) {
        CoherentMemory area = memory.alloc(4096);
        memory.free(area);
        return new QueueLayout(size, area.mapHandle(), area.mapHandle(), area.mapHandle());
    }

    private void negotiate(int... more) throws VirtioException {
        transport.status(0);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        transport.accept(Features.of(more).with(Feature.VERSION_1));
        transport.status(FEATURES_OK);
    }

    private void listen() {
        transport.listen(
                new Transport.Listener() {
                    @Override
                    public void queueUsed(int queue) {
                        events.add("used " + queue);
                    }

                    @Override
                    public void configChanged() {
                        events.add("config");
                    }

                    @Override
                    public void gone(VirtioException reason) {
                        events.add("gone: " + reason.getMessage());
                    }
                });
    }

    private void run(int... queues) throws VirtioException {
        transport.start();
        listen();
        negotiate();
        for (int queue : queues) {
            transport.startQueue(queue, layout(16));
        }
        transport.status(FEATURES_OK | DeviceStatus.DRIVER_OK);
    }

    private String refused() {
        String message = assertThrows(VirtioException.class, transport::start).getMessage();
        assertTrue(message.startsWith("pci:test"), message);
        return message;
    }

    @Test
    @Tag("DRV-PCI-001")
    @Tag("DRV-PCI-003")
    @Tag("DRV-PCI-004")
    void deviceTypeFollowsFromTheDeviceId() throws Exception {
        function.show(2, 2, 0x1040 + 25);
        function.show(8, 1, 77);
        function.show(0x2c, 4, 0x1234_5678);
        transport.start();
        assertEquals(25, transport.deviceType());
        assertEquals(-1, PciTransport.deviceType(0x1af4, 0x0fff, 2));
        assertEquals(-1, PciTransport.deviceType(0x1af4, 0x1080, 2));
        assertEquals(-1, PciTransport.deviceType(0x1af5, 0x1042, 2));
    }

    @Test
    @Tag("DRV-PCI-002")
    void transitionalDeviceIsDrivenAsAModernOneOrRefusedByName() throws Exception {
        function.show(2, 2, 0x1001);
        function.show(0x2e, 2, 2);
        transport.start();
        assertEquals(2, transport.deviceType());
        remake(new TestDevice(1, 0), 2);
        function.show(2, 2, 0x1001);
        function.show(6, 2, 0);
        assertTrue(refused().contains("legacy"));
    }

    @Test
    void whatIsNoVirtioDeviceIsRefused() {
        function.show(0, 4, 0x10d3_8086);
        String message = refused();
        assertTrue(message.contains("0x8086") && message.contains("0x10d3"), message);
    }

    @Test
    @Tag("DRV-PCI-013")
    @Tag("DRV-PCI-018")
    void deviceIsResetBeforeItMayAccessMemory() throws Exception {
        function.lie(20, 3, DeviceStatus.DRIVER_OK);
        transport.start();
        List<String> record = function.record;
        assertTrue(record.indexOf("C=2") < record.indexOf("W20.8=0"), record::toString);
        assertTrue(record.indexOf("W20.8=0") < record.indexOf("R20"), record::toString);
        assertTrue(record.indexOf("R20") < record.indexOf("C=6"), record::toString);
    }

    @Test
    @Tag("DRV-PCI-005")
    @Tag("DRV-PCI-006")
    @Tag("DRV-PCI-014")
    @Tag("DRV-PCI-017")
    @Tag("DRV-PCI-019")
    void queueIsEnabledLastAndNeverDisabled() throws Exception {
        transport.start();
        negotiate();
        function.record.clear();
        transport.startQueue(1, layout(16));
        List<String> record = function.record;
        int enabled = record.indexOf("W28.16=1");
        assertTrue(enabled > record.lastIndexOf("W24.16=10"), record::toString);
        for (int offset = 32; offset < 56; offset += 4) {
            String written = "W" + offset + ".32";
            int at = 0;
            while (!record.get(at).startsWith(written)) {
                at++;
            }
            assertTrue(at < enabled, record::toString);
        }
        transport.status(0);
    }

    @Test
    @Tag("DRV-PCI-015")
    @Tag("DRV-PCI-016")
    void queueThatTheDeviceRefusesIsAnError() throws Exception {
        transport.start();
        negotiate();
        for (int size : new int[] {0, 3, 63, 65, -1}) {
            assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(size)));
        }
        assertFalse(function.record.stream().anyMatch(access -> access.startsWith("W24")));
        device.refuseQueues("by the test");
        assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(16)));
        device.refuseQueues(null);
        function.lie(28, 1, 1);
        assertTrue(
                assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(16)))
                        .getMessage()
                        .contains("in use"));
    }

    @Test
    @Tag("DRV-PCI-036")
    @Tag("DRV-PCI-037")
    @Tag("DRV-PCI-038")
    @Tag("DRV-PCI-039")
    void notificationsAreAsWideAsNegotiated() throws Exception {
        run(2);
        function.record.clear();
        transport.notifyQueue(2, 2);
        assertEquals(List.of("W%d.16=2".formatted(0x4000 + 8)), function.record);
        negotiate(Feature.NOTIFICATION_DATA);
        transport.startQueue(2, layout(16));
        function.record.clear();
        transport.notifyQueue(2, 0x8005_0002);
        assertEquals(List.of("W%d.32=80050002".formatted(0x4000 + 8)), function.record);
        function.record.clear();
        transport.notifyQueue(1, 1);
        transport.notifyQueue(77, 77);
        assertEquals(List.of(), function.record, "queues that are not started");
    }

    @Test
    void notificationBeyondItsStructureIsRefused() throws Exception {
        transport.start();
        negotiate();
        function.lie(30, 1, 3);
        String message =
                assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(16)))
                        .getMessage();
        assertTrue(message.contains("12") && message.contains("beyond"), message);
        function.show(function.capability(2) + 16, 4, -1);
        transport.start();
        negotiate();
        function.lie(30, 1, 0xffff);
        assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(16)));
        function.show(function.capability(2) + 16, 4, 1);
        transport.start();
        negotiate();
        function.lie(30, 1, 1);
        assertTrue(
                assertThrows(VirtioException.class, () -> transport.startQueue(0, layout(16)))
                        .getMessage()
                        .contains("multiple"));
    }

    @Test
    @Tag("DRV-PCI-020")
    @Tag("DRV-PCI-021")
    @Tag("DRV-PCI-022")
    void queueResetIsWaitedFor() throws Exception {
        transport.start();
        negotiate(Feature.RING_RESET);
        transport.startQueue(0, layout(16));
        function.lie(58, 5, 1);
        function.record.clear();
        assertTrue(transport.stopQueue(0));
        assertEquals("R58", function.record.getLast());
        transport.startQueue(0, layout(32));
        assertEquals(32, device.queue(0).layout().size());
    }

    @Test
    void deviceWithoutTheRegisterCannotResetQueues() throws Exception {
        assertTrue(Capabilities.of("pci:test", function).common().bytes() >= 60);
        function.show(function.capability(1) + 12, 4, 56);
        transport.start();
        assertFalse(transport.offered().has(Feature.RING_RESET));
        negotiate();
        assertFalse(transport.stopQueue(0));
    }

    @Test
    @Tag("DRV-PCI-025")
    void everyQueueHasItsVectorAndTheStatusIsNotReadForIt() throws Exception {
        run(0, 1, 2);
        assertTrue(function.record.contains("msix 4"), function.record::toString);
        function.record.clear();
        for (int queue = 0; queue < 3; queue++) {
            device.queue(queue).export().interrupt(queue);
            assertEquals("used " + queue, events.poll());
        }
        device.queue(0).export().configChanged();
        assertEquals("config", events.poll());
        assertNull(events.poll());
        assertFalse(function.record.contains("R4096"), function.record::toString);
    }

    @Test
    @Tag("DRV-PCI-030")
    @Tag("DRV-PCI-032")
    @Tag("DRV-PCI-033")
    void queuesShareTheVectorsThereAre() throws Exception {
        remake(new TestDevice(3, 32), 3);
        run(0, 1, 2);
        assertTrue(function.record.contains("msix 3"), function.record::toString);
        device.queue(1).export().interrupt(1);
        assertEquals("used 1", events.poll());
        device.queue(0).export().interrupt(0);
        assertEquals("used 0", events.poll());
        assertEquals("used 2", events.poll());
        assertNull(events.poll());
    }

    @Test
    @Tag("DRV-PCI-042")
    void oneVectorForEverythingIsTakenApart() throws Exception {
        remake(new TestDevice(2, 32), 1);
        run(0, 1);
        device.queue(0).export().interrupt(0);
        assertEquals("used 0", events.poll());
        assertEquals("used 1", events.poll());
        assertNull(events.poll(), "no configuration change");
        device.queue(0).export().configChanged();
        assertEquals("used 0", events.poll());
        assertEquals("used 1", events.poll());
        assertEquals("config", events.poll());
    }

    @Test
    @Tag("DRV-PCI-031")
    @Tag("DRV-PCI-042")
    void withoutMsixThePinIsUsed() throws Exception {
        function.msixPossible = false;
        run(0, 1);
        device.queue(0).export().interrupt(0);
        assertEquals("used 0", events.poll());
        assertEquals("used 1", events.poll());
        assertNull(events.poll());
        device.queue(0).export().configChanged();
        assertEquals("config", events.poll());
        assertNull(events.poll());
        transport.interrupt(PciFunction.PIN);
        assertNull(events.poll(), "somebody else's interrupt on a shared line");
    }

    @Test
    @Tag("DRV-PCI-034")
    @Tag("DRV-PCI-035")
    void vectorThatTheDeviceDoesNotMapIsReplaced() throws Exception {
        transport.start();
        listen();
        negotiate();
        function.lie(26, 1, 0xffff);
        transport.startQueue(2, layout(16));
        transport.startQueue(0, layout(16));
        transport.status(FEATURES_OK | DeviceStatus.DRIVER_OK);
        device.queue(2).export().interrupt(2);
        assertEquals("used 2", events.poll());
        assertEquals("used 0", events.poll(), "shared");
        transport.status(0);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        function.lie(16, 1, 0xffff);
        transport.accept(Features.of(Feature.VERSION_1));
        transport.status(FEATURES_OK);
        transport.startQueue(1, layout(16));
        transport.status(FEATURES_OK | DeviceStatus.DRIVER_OK);
        device.queue(1).export().interrupt(1);
        assertEquals("used 1", events.poll(), "by the pin");
        function.lie(26, 9, 0xffff);
    }

    @Test
    void queueWithoutAnyVectorIsRefused() throws Exception {
        transport.start();
        negotiate();
        function.lie(26, 9, 0xffff);
        assertTrue(
                assertThrows(VirtioException.class, () -> transport.startQueue(2, layout(16)))
                        .getMessage()
                        .contains("no vector"));
    }

    @Test
    void deviceWithoutInterruptsCanBePolled() throws Exception {
        function.msixPossible = false;
        function.pinPossible = false;
        run(0);
        assertEquals(FEATURES_OK | DeviceStatus.DRIVER_OK, transport.status());
    }

    @Test
    void functionThatReadsAsAllOnesIsReportedGone() throws Exception {
        run(0);
        function.allOnes = true;
        VirtioException e = assertThrows(VirtioException.class, transport::status);
        assertTrue(e.getMessage().contains("removed"), e.getMessage());
        assertEquals("gone: " + e.getMessage(), events.poll());
        assertThrows(VirtioException.class, () -> transport.readConfig(0, new byte[4]));
        assertThrows(VirtioException.class, () -> transport.status(0));
        transport.notifyQueue(0, 0);
        assertNull(events.poll());
    }

    @Test
    void deviceBehindAnIommuMustKnowOfIt() throws Exception {
        function.translated = true;
        transport.start();
        assertTrue(transport.offered().has(Feature.ACCESS_PLATFORM));
        assertThrows(VirtioException.class, () -> transport.accept(Features.of(Feature.VERSION_1)));
        transport.accept(Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM));
        function.lie(4, 4, 1);
        String message = assertThrows(VirtioException.class, transport::offered).getMessage();
        assertTrue(message.contains("ACCESS_PLATFORM"), message);
    }
}
