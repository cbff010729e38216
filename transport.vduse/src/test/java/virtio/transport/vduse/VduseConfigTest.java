package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import org.junit.jupiter.api.Test;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.tck.TestDevice;

import java.util.concurrent.TimeUnit;

/** Configurations that change: before there is a driver, while it comes up, while nobody serves. */
class VduseConfigTest extends VduseEnds {
    private int config(int offset) throws VirtioException {
        byte[] one = new byte[1];
        transport.readConfig(offset, one);
        return one[0];
    }

    @Test
    void aConfigurationThatChangesBeforeThereIsADriverIsReadByIt() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        device.changeConfig(3, 77);
        open();
        assertEquals(77, config(3), "changed before it was opened");
        transport.status(0);
        device.changeConfig(3, 78);
        transport.status(DeviceStatus.ACKNOWLEDGE);
        assertEquals(78, config(3), "changed after the reset");
    }

    @Test
    void aConfigurationThatChangesWhileTheDriverComesUpIsReported() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        export(VduseUnderTest.ADDRESS, device);
        open();
        transport.status(0);
        transport.status(DeviceStatus.ACKNOWLEDGE);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        assertEquals(3, config(3));
        device.changeConfig(3, 79);
        transport.accept(Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM));
        transport.status(UP & ~DeviceStatus.DRIVER_OK);
        transport.status(UP);
        assertNotNull(configChanges.poll(10, TimeUnit.SECONDS), "configuration change");
        assertEquals(79, config(3));
    }

    @Test
    void aConfigurationInterruptBeforeTheKernelTakesItIsNotLost() throws Exception {
        TestDevice device = new TestDevice(1, 8);
        subject.kernel.beforeStatus =
                () -> {
                    if (device.queue(0) != null && subject.kernel.refusedInterrupts.get() == 0) {
                        device.changeConfig(3, 80);
                        device.queue(0).export().configChanged();
                        while (subject.kernel.refusedInterrupts.get() == 0) {
                            Thread.onSpinWait();
                        }
                    }
                };
        export(VduseUnderTest.ADDRESS, device);
        open();
        run();
        assertNotNull(configChanges.poll(10, TimeUnit.SECONDS), "configuration change");
        assertEquals(80, config(3));
    }

    /** What the driver has read, and what has changed since, its follower cannot know. */
    @Test
    void whoFollowsADeadServerReportsTheConfiguration() throws Exception {
        export(VduseUnderTest.ADDRESS + ",keep", new TestDevice(1, 8));
        open();
        run();
        subject.kernel.device(VduseUnderTest.ADDRESS).sever();
        TestDevice second = new TestDevice(1, 8);
        second.changeConfig(3, 81);
        export(VduseUnderTest.ADDRESS, second);
        assertNotNull(configChanges.poll(10, TimeUnit.SECONDS), "configuration change");
        assertEquals(81, config(3));
    }
}
