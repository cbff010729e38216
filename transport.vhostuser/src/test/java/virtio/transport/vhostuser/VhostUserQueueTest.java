package virtio.transport.vhostuser;

import virtio.tck.QueueContract;
import virtio.tck.TransportUnderTest;

class VhostUserQueueTest extends QueueContract {
    @Override
    protected TransportUnderTest transport() {
        return new VhostUserUnderTest();
    }
}
