package example.shm;

import virtio.tck.TransportContract;
import virtio.tck.TransportUnderTest;

class ShmTransportTest extends TransportContract {
    @Override
    protected TransportUnderTest transport() throws Exception {
        return new ShmUnderTest();
    }
}
