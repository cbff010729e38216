package example.shm;

import virtio.tck.MapOpsContract;
import virtio.tck.TransportUnderTest;

class ShmMapOpsTest extends MapOpsContract {
    @Override
    protected TransportUnderTest transport() throws Exception {
        return new ShmUnderTest();
    }
}
