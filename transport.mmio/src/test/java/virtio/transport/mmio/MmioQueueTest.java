package virtio.transport.mmio;

import virtio.tck.QueueContract;
import virtio.tck.TransportUnderTest;

class MmioQueueTest extends QueueContract {
    @Override
    protected TransportUnderTest transport() {
        return new MmioUnderTest();
    }
}
