package virtio.transport.vduse;

import virtio.tck.QueueContract;
import virtio.tck.TransportUnderTest;

class VduseQueueTest extends QueueContract {
    @Override
    protected TransportUnderTest transport() {
        return new VduseUnderTest();
    }
}
