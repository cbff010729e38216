package virtio.transport.pci;

import virtio.tck.QueueContract;
import virtio.tck.TransportUnderTest;

class PciQueueTest extends QueueContract {
    @Override
    protected TransportUnderTest transport() {
        return new PciUnderTest();
    }
}
