package example.shm;

import virtio.tck.QueueContract;
import virtio.tck.TransportUnderTest;

class ShmQueueTest extends QueueContract {
    @Override
    protected TransportUnderTest transport() throws Exception {
        return new ShmUnderTest();
    }
}
