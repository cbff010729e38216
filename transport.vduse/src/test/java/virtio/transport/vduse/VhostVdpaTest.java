package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.tck.TestDevice;

import java.util.List;

/** What the driver end makes of what vhost-vdpa has and has not, and of its rules. */
class VhostVdpaTest extends VduseEnds {
    private static final long EVERYTHING = 0x1FE;

    @Test
    void backendFeaturesAreThoseThatAreUsedAndThere() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        open();
        assertEquals("SET_BACKEND_FEATURES 0xe", subject.kernel.driverSaid.getFirst());
        transport.close();
        subject.kernel.driverSaid.clear();
        subject.kernel.backendFeatures = EVERYTHING;
        open();
        // Neither RESUME, ENABLE_AFTER_DRIVER_OK nor DESC_ASID.
        assertEquals("SET_BACKEND_FEATURES 0x11e", subject.kernel.driverSaid.getFirst());
    }

    @Test
    void aKernelWithoutMessagesOfVersion2IsTooOld() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.kernel.backendFeatures = 0;
        VirtioException e = assertThrows(VirtioException.class, this::open);
        assertTrue(e.getMessage().contains("too old"), e.getMessage());
    }

    @Test
    void withoutBatchesMemoryIsShownAllTheSame() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.kernel.backendFeatures = 1L << VhostVdpa.BACKEND_F_IOTLB_MSG_V2;
        open();
        run();
        assertEquals(UP, transport.status());
    }

    @Test
    void allGroupsOfQueuesSeeTheSame() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.kernel.groups = 3;
        open();
        assertEquals(
                List.of("SET_GROUP_ASID 0 0", "SET_GROUP_ASID 1 0", "SET_GROUP_ASID 2 0"),
                subject.kernel.driverSaid.subList(1, 4));
    }

    @Test
    void whatCanBeSuspendedIsBeforeItIsResetAndOnlyWhileItRuns() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        subject.kernel.backendFeatures = EVERYTHING;
        open();
        run();
        assertTrue(!subject.kernel.driverSaid.contains("SUSPEND"), "nothing ran");
        subject.kernel.driverSaid.clear();
        run();
        assertEquals(List.of("SUSPEND", "SET_STATUS 0x0"), subject.kernel.driverSaid.subList(0, 2));
        notifies(device);
    }

    @Test
    void eachQueueHasItsOwnMost() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(2, 8));
        subject.kernel.device(VduseUnderTest.ADDRESS).queues[1].maxSize = 100;
        open();
        assertEquals(256, transport.maxQueueSize(0));
        assertEquals(64, transport.maxQueueSize(1), "a power of two");
    }

    @Test
    void memoryThatMayNotBeLockedIsSaidToNeedIt() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        subject.kernel.lockableBytes = 1 << 20;
        open();
        VirtioException e = assertThrows(VirtioException.class, this::run);
        assertTrue(e.getMessage().contains("ulimit -l"), e.getMessage());
    }

    @Test
    void theKernelsRulesAreErrorsThatNameThem() throws Exception {
        export(VduseUnderTest.ADDRESS, new TestDevice(1, 8));
        open();
        run();
        VirtioException less =
                assertThrows(
                        VirtioException.class, () -> transport.status(DeviceStatus.ACKNOWLEDGE));
        assertTrue(less.getMessage().contains("SET_STATUS ACKNOWLEDGE"), less.getMessage());
        VirtioException late =
                assertThrows(
                        VirtioException.class,
                        () -> transport.accept(Features.of(Feature.VERSION_1)));
        assertTrue(late.getMessage().contains("SET_FEATURES"), late.getMessage());
        assertTrue(gone.isEmpty(), "a broken rule is no end of the device");
    }
}
