package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import org.junit.jupiter.api.AfterEach;
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

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Both ends of a VDUSE device with a simulated kernel between them, its driver driven by hand. */
@Timeout(60)
abstract class VduseEnds {
    static final int PACKED = Feature.RING_PACKED;

    static final int UP =
            DeviceStatus.ACKNOWLEDGE
                    | DeviceStatus.DRIVER
                    | DeviceStatus.FEATURES_OK
                    | DeviceStatus.DRIVER_OK;

    final VduseUnderTest subject = new VduseUnderTest();
    final BlockingQueue<Integer> used = new LinkedBlockingQueue<>();
    final BlockingQueue<Integer> configChanges = new LinkedBlockingQueue<>();
    final BlockingQueue<VirtioException> gone = new LinkedBlockingQueue<>();
    final List<CoherentMemory> allocated = new ArrayList<>();
    final List<Export> exports = new ArrayList<>();
    boolean packed;
    Transport transport;
    DeviceMapping mapping;

    @AfterEach
    void close() {
        if (transport != null) {
            allocated.forEach(mapping::free);
            transport.close();
        }
        exports.forEach(Export::close);
        subject.close();
    }

    Export export(String address, TestDevice device) throws VirtioException {
        Export export = subject.exporter().export(address, device);
        exports.add(export);
        return export;
    }

    void open() throws VirtioException {
        transport = subject.provider().open(VduseUnderTest.ADDRESS);
        mapping = new DeviceMapping(subject.mapOps(), transport.mapToken(0));
        transport.listen(
                new Transport.Listener() {
                    @Override
                    public void queueUsed(int queue) {
                        used.add(queue);
                    }

                    @Override
                    public void configChanged() {
                        configChanges.add(1);
                    }

                    @Override
                    public void gone(VirtioException reason) {
                        gone.add(reason);
                    }
                });
    }

    CoherentMemory alloc(long bytes) {
        CoherentMemory memory = mapping.alloc(bytes);
        assertNotNull(memory, bytes + " bytes");
        allocated.add(memory);
        return memory;
    }

    /** Negotiates, starts queue 0 and says DRIVER_OK. */
    QueueLayout run() throws VirtioException {
        transport.status(0);
        transport.status(DeviceStatus.ACKNOWLEDGE);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        Features features = Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM);
        transport.accept(packed ? features.with(PACKED) : features);
        transport.status(UP & ~DeviceStatus.DRIVER_OK);
        QueueLayout layout =
                new QueueLayout(
                        64,
                        alloc(4096).mapHandle(),
                        alloc(4096).mapHandle(),
                        alloc(4096).mapHandle());
        transport.startQueue(0, layout);
        transport.status(UP);
        return layout;
    }

    static TestDevice.Started started(TestDevice device) {
        TestDevice.Started started = device.queue(0);
        assertNotNull(started, "queue 0 at the device");
        return started;
    }

    void notifies(TestDevice device) throws InterruptedException {
        device.forgetNotified();
        transport.notifyQueue(0, 0);
        assertEquals(0, device.awaitNotified().queue());
        used.clear();
        started(device).export().interrupt(0);
        assertEquals(0, used.poll(10, TimeUnit.SECONDS), "interrupt");
    }
}
