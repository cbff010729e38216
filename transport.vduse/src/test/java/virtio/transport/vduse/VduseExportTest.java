package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.transport.DriverMemory;
import virtio.api.transport.Export;
import virtio.api.transport.ExportedDevice;
import virtio.api.transport.QueueLayout;
import virtio.linux.FileDescriptor;
import virtio.tck.TestDevice;

import java.lang.foreign.ValueLayout;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** Servers that die, keep their device, say nothing or refuse; memory that changes meanwhile. */
class VduseExportTest extends VduseEnds {
    private static byte mark(TestDevice device, int value) {
        var inflight = started(device).layout().inflight();
        byte before = inflight.get(ValueLayout.JAVA_BYTE, 40);
        inflight.set(ValueLayout.JAVA_BYTE, 40, (byte) value);
        return before;
    }

    @Test
    void whoFollowsADeadServerGoesOnWithWhatWasInFlight() throws Exception {
        TestDevice first = new TestDevice(2, 8);
        export(VduseUnderTest.ADDRESS + ",keep", first);
        open();
        QueueLayout layout = run();
        notifies(first);
        mark(first, 77);
        subject.kernel.device(VduseUnderTest.ADDRESS).sever();
        transport.notifyQueue(0, 0);

        TestDevice second = new TestDevice(2, 8);
        export(VduseUnderTest.ADDRESS, second);
        TestDevice.Started resumed = started(second);
        assertEquals(layout.descriptorArea(), resumed.layout().descriptorArea());
        assertEquals(layout.deviceArea(), resumed.layout().deviceArea());
        assertEquals(77, mark(second, 78), "what the dead server had in flight");
        assertEquals(Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM), second.accepted());
        notifies(second);
        assertEquals(UP, transport.status());
        assertTrue(gone.isEmpty());
    }

    /** Both ends of a packed queue have a wrap counter, in words of the kernel's and of vhost's. */
    @Test
    void aPackedQueueStandsWhereItsWrapCountersSay() throws Exception {
        packed = true;
        TestDevice first = new TestDevice(2, 8).offer(Features.of(Feature.VERSION_1, PACKED));
        export(VduseUnderTest.ADDRESS + ",keep", first);
        open();
        run();
        int begin = 0x8000_8000;
        assertEquals(begin, started(first).layout().nextAvailable());
        SimulatedVduse device = subject.kernel.device(VduseUnderTest.ADDRESS);
        assertEquals(0x0001_0000_0001L, VduseDevice.state(begin, true) & 0xFFFF_0000_FFFFL);
        assertEquals(0, device.nextAvailable(0), "where the device has stopped");
        for (int position : new int[] {0x8005_0007, 0x7FFF_FFFF, 0x0001_8000}) {
            long state = VduseDevice.state(position, true);
            assertEquals(position, VduseDevice.nextAvailable(state, true));
        }
        assertEquals(0x0007_0000_0005_0001L, VduseDevice.state(0x0007_8005, true));

        device.sever();
        TestDevice second = new TestDevice(2, 8).offer(Features.of(Feature.VERSION_1, PACKED));
        export(VduseUnderTest.ADDRESS, second);
        assertEquals(begin, started(second).layout().nextAvailable());
        long entries = 32 + 32L * started(second).layout().size();
        assertTrue(
                started(second).layout().inflight().byteSize() >= entries,
                "a packed queue's entries have room");
    }

    @Test
    void keptDeviceWaitsForTheNextExport() throws Exception {
        Export first = export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(1, 8));
        open();
        run();
        first.close();
        assertTrue(subject.kernel.exists(VduseUnderTest.ADDRESS));
        transport.notifyQueue(0, 0);
        TestDevice second = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, second);
        notifies(second);
    }

    /** Refusing a backend that is not the device's leaves all of the device's as it is. */
    @Test
    void aRefusedExportTouchesNothingOfTheDeviceThatIsThere() throws Exception {
        TestDevice first = new TestDevice(3, 16);
        export(VduseUnderTest.ADDRESS + ",keep", first);
        open();
        run();
        mark(first, 77);
        SimulatedVduse device = subject.kernel.device(VduseUnderTest.ADDRESS);
        device.sever();
        byte[] config = device.config();
        for (int queues : new int[] {1, 4}) {
            TestDevice other = new TestDevice(queues, 8);
            other.changeConfig(0, 0x55);
            VirtioException e =
                    assertThrows(
                            VirtioException.class, () -> export(VduseUnderTest.ADDRESS, other));
            assertTrue(e.getMessage().contains("which is another one"), e.getMessage());
        }
        TestDevice unlike = new TestDevice(3, 8);
        unlike.refuseFeatures(true);
        unlike.changeConfig(0, 0x55);
        VirtioException e =
                assertThrows(VirtioException.class, () -> export(VduseUnderTest.ADDRESS, unlike));
        assertTrue(e.getMessage().contains("are not acceptable"), e.getMessage());
        assertArrayEquals(config, device.config());
        TestDevice second = new TestDevice(3, 16);
        export(VduseUnderTest.ADDRESS, second);
        assertEquals(77, mark(second, 78), "what the dead server had in flight");
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void aNameThatAnotherDeviceHasOnTheBusIsRefused(boolean shown) throws Exception {
        subject.kernel.others.add(VduseUnderTest.ADDRESS);
        subject.kernel.showsBus = shown;
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () -> export(VduseUnderTest.ADDRESS, new TestDevice(1, 8)));
        assertTrue(e.getMessage().contains("another vDPA device has that name"), e.getMessage());
        assertFalse(subject.kernel.exists(VduseUnderTest.ADDRESS));
        assertEquals(Set.of(VduseUnderTest.ADDRESS), subject.kernel.others, "it stays");
    }

    @Test
    void anExporterThatStopsTakesItsDevicesAwayButThoseThatAreKept() throws Exception {
        List<Integer> before = VduseUnderTest.live();
        Export export = export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.exporter.close();
        assertFalse(subject.kernel.exists(VduseUnderTest.ADDRESS));
        assertEquals(before, VduseUnderTest.live());
        export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(1, 8));
        export.close();
        subject.exporter.close();
        assertTrue(subject.kernel.exists(VduseUnderTest.ADDRESS));
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.exporter.close();
        assertFalse(subject.kernel.exists(VduseUnderTest.ADDRESS));
    }

    @Test
    void aKeptDeviceWhoseNameAnotherOneHasOnTheBusIsRefusedAndKept() throws Exception {
        export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(1, 8)).close();
        subject.kernel.removeFromBus(VduseUnderTest.ADDRESS);
        subject.kernel.others.add(VduseUnderTest.ADDRESS);
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () -> export(VduseUnderTest.ADDRESS, new TestDevice(1, 8)));
        assertTrue(e.getMessage().contains("another vDPA device has that name"), e.getMessage());
        assertTrue(subject.kernel.exists(VduseUnderTest.ADDRESS));
    }

    @Test
    void aDeviceThatHasTakenTheNameOnTheBusMeanwhileStaysThere() throws Exception {
        Export export = export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.kernel.removeFromBus(VduseUnderTest.ADDRESS);
        subject.kernel.others.add(VduseUnderTest.ADDRESS);
        export.close();
        assertEquals(Set.of(VduseUnderTest.ADDRESS), subject.kernel.others);
        assertFalse(subject.kernel.exists(VduseUnderTest.ADDRESS));
    }

    @Test
    void aDeviceWithMoreConfigurationIsAnotherOne() throws Exception {
        isAnotherOne(1, 8, new TestDevice(1, 16));
    }

    @Test
    void aDeviceWithMoreQueuesIsAnotherOne() throws Exception {
        isAnotherOne(3, 8, new TestDevice(2, 8));
    }

    /** A device is refused in place of one with so many queues and bytes of configuration. */
    private void isAnotherOne(int queues, int configSize, TestDevice other) throws Exception {
        export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(queues, configSize)).close();
        VirtioException e =
                assertThrows(VirtioException.class, () -> export(VduseUnderTest.ADDRESS, other));
        assertTrue(e.getMessage().contains("vdpa dev del disk0"), e.getMessage());
        export(VduseUnderTest.ADDRESS, new TestDevice(queues, configSize));
    }

    @Test
    void withoutTheRightToPutItOnTheBusTheDeviceWaitsForWhoHasIt() throws Exception {
        subject.kernel.mayManage = false;
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        assertThrows(VirtioException.class, this::open);
        subject.kernel.mayManage = true;
        subject.kernel.addToBus(VduseUnderTest.ADDRESS);
        open();
        run();
        notifies(device);
    }

    /** Its driver has cut off the file that the rings are in, and so the JVM says it. */
    @Test
    void aRingThatIsGoneIsRefusedAndTheDeviceGoesOn() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        AtomicBoolean gone = new AtomicBoolean(true);
        ExportedDevice cutOff =
                (ExportedDevice)
                        Proxy.newProxyInstance(
                                getClass().getClassLoader(),
                                new Class<?>[] {ExportedDevice.class},
                                (proxy, method, arguments) -> {
                                    if (method.getName().equals("startQueue") && gone.get()) {
                                        throw new InternalError("a fault in a memory access");
                                    }
                                    return method.invoke(device, arguments);
                                });
        exports.add(subject.exporter().export(VduseUnderTest.ADDRESS, cutOff));
        open();
        run();
        assertEquals(UP & ~DeviceStatus.DRIVER_OK, transport.status());
        gone.set(false);
        run();
        notifies(device);
    }

    @Test
    void resetForgetsWhatWasInFlight() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        open();
        run();
        mark(device, 77);
        run();
        assertEquals(0, mark(device, 1));
    }

    @Test
    void aQueueThatStartsAgainAndAgainHoldsNoMoreDescriptors() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        open();
        run();
        run();
        int before = FileDescriptor.live();
        for (int i = 0; i < 5; i++) {
            run();
        }
        assertEquals(before, FileDescriptor.live());
    }

    @Test
    void nothingIsLeftOfAClosedExport() throws Exception {
        Export export = export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        assertTrue(subject.kernel.exists(VduseUnderTest.ADDRESS));
        export.close();
        assertFalse(subject.kernel.exists(VduseUnderTest.ADDRESS));
        assertFalse(
                Files.exists(subject.folder.resolve("state/vduse-disk0.inflight")),
                "file of what is in flight");
    }

    @Test
    void memoryThatIsAddedWhileAQueueRunsReachesTheDevice() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        open();
        QueueLayout layout = run();
        TestDevice.Started before = started(device);
        assertNotEquals(
                DriverMemory.FAULT, before.memory().translate(layout.descriptorArea(), 16, true));
        CoherentMemory most = alloc(11 << 20);
        CoherentMemory grown = alloc(11 << 20);
        assertTrue(grown.mapHandle() - most.mapHandle() > 11 << 20, "a region of its own");
        grown.segment().set(ValueLayout.JAVA_INT, 4, 4711);
        assertNotSame(before, started(device), "the queue was stopped for it");
        DriverMemory memory = started(device).memory();
        long address = memory.translate(grown.mapHandle(), 11 << 20, true);
        assertNotEquals(DriverMemory.FAULT, address);
        assertEquals(4711, subject.at(address, 8).get(ValueLayout.JAVA_INT, 4));
        assertEquals(
                DriverMemory.FAULT,
                memory.translate(grown.mapHandle() - 8192, 4096, false),
                "the hole between regions");
        notifies(device);
    }

    @Test
    void memoryThatIsInvalidatedIsForgotten() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        open();
        QueueLayout layout = run();
        DriverMemory memory = started(device).memory();
        assertNotEquals(DriverMemory.FAULT, memory.translate(layout.descriptorArea(), 16, false));
        subject.kernel.device(VduseUnderTest.ADDRESS).map(List.of());
        assertEquals(DriverMemory.FAULT, memory.translate(layout.descriptorArea(), 16, false));
        assertEquals(0, memory.reach(layout.descriptorArea(), false));
    }

    @Test
    void anInterruptBeforeTheKernelTakesItIsNotLost() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        device.onNotified(
                queue -> {
                    if (subject.kernel.refusedInterrupts.get() == 0) {
                        started(device).export().interrupt(queue);
                    }
                });
        subject.kernel.beforeStatus =
                () -> {
                    while (device.queue(0) != null && subject.kernel.refusedInterrupts.get() == 0) {
                        Thread.onSpinWait();
                    }
                };
        export(VduseUnderTest.ADDRESS, device);
        open();
        run();
        assertEquals(0, used.poll(10, TimeUnit.SECONDS), "interrupt");
    }

    @Test
    void afterAResetTheDeviceSeesNothing() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        open();
        QueueLayout layout = run();
        DriverMemory memory = started(device).memory();
        assertNotEquals(DriverMemory.FAULT, memory.translate(layout.descriptorArea(), 16, false));
        transport.status(0);
        assertEquals(DriverMemory.FAULT, memory.translate(layout.descriptorArea(), 16, false));
    }

    @Test
    void driverOkIsRefusedWhenAQueueCannotBeServed() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        device.refuseQueues("queue 0: nothing is shared at 0x7");
        export(VduseUnderTest.ADDRESS, device);
        open();
        run();
        assertEquals(UP & ~DeviceStatus.DRIVER_OK, transport.status());
    }

    @Test
    void aServerThatNeverAnswersIsReportedByWhoOpens() throws Exception {
        subject.kernel.messageTimeoutMillis = 50;
        long features = Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM).word(0);
        subject.kernel.create(VduseUnderTest.ADDRESS, DeviceType.BLOCK, features, 1, new byte[8]);
        subject.kernel.addToBus(VduseUnderTest.ADDRESS);
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () -> subject.provider().open(VduseUnderTest.ADDRESS));
        assertTrue(e.getMessage().contains("EIO"), e.getMessage());
    }

    @Test
    void aServerThatAnswersNoMoreIsReportedGone() throws Exception {
        export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(1, 8));
        open();
        run();
        subject.kernel.messageTimeoutMillis = 50;
        subject.kernel.device(VduseUnderTest.ADDRESS).sever();
        VirtioException e = assertThrows(VirtioException.class, () -> transport.status(0));
        assertTrue(e.getMessage().contains("its server has not answered"), e.getMessage());
        assertNotNull(gone.poll(10, TimeUnit.SECONDS), "gone");
        assertThrows(VirtioException.class, () -> transport.status(0));
        assertTrue(gone.isEmpty(), "gone was reported more than once");
    }

    @Test
    void aDeviceThatTheKernelHasGivenUpIsReplacedOnceItIsOffTheBus() throws Exception {
        export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(1, 8));
        open();
        run();
        subject.kernel.messageTimeoutMillis = 50;
        subject.kernel.device(VduseUnderTest.ADDRESS).sever();
        assertThrows(VirtioException.class, () -> transport.status(0));
        VirtioException e =
                assertThrows(
                        VirtioException.class,
                        () -> export(VduseUnderTest.ADDRESS, new TestDevice(1, 8)));
        assertTrue(e.getMessage().contains("vdpa dev del disk0"), e.getMessage());
        allocated.forEach(mapping::free);
        allocated.clear();
        transport.close();
        subject.kernel.removeFromBus(VduseUnderTest.ADDRESS);
        subject.kernel.messageTimeoutMillis = 10_000;
        TestDevice next = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, next);
        open();
        run();
        notifies(next);
    }

    @Test
    void whatTheKernelOrTheWireDoesNotTakeIsNotOffered() throws Exception {
        int configWce = 11;
        Features all =
                Features.of(9, configWce, Feature.VERSION_1)
                        .with(Feature.RING_PACKED, Feature.RING_RESET, Feature.NOTIFICATION_DATA);
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8).offer(all));
        open();
        assertEquals(
                Features.of(9, Feature.VERSION_1, Feature.ACCESS_PLATFORM)
                        .with(Feature.RING_PACKED),
                transport.offered());
    }

    @Test
    void packedQueuesAreNotOfferedWhenTheOperatorSaysSo() throws Exception {
        Features all = Features.of(9, Feature.VERSION_1, PACKED);
        export(VduseUnderTest.ADDRESS + ",keep,split", new TestDevice(1, 8).offer(all));
        open();
        assertEquals(
                Features.of(9, Feature.VERSION_1, Feature.ACCESS_PLATFORM), transport.offered());
    }

    @Test
    void namesThatNoDeviceCanHaveAreRefused() {
        String longest = "x".repeat(65);
        for (String name :
                new String[] {"", "control", "../x", "a b", longest, ",keep", "a,keeps", "a,"}) {
            VirtioException e =
                    assertThrows(
                            VirtioException.class, () -> export(name, new TestDevice(1, 0)), name);
            assertTrue(e.getMessage().startsWith("vduse:" + name + ": "), e.getMessage());
        }
    }
}
