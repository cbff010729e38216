package example.shm;

import virtio.tck.MapOpsLoadContract;
import virtio.tck.TransportUnderTest;

class ShmMapOpsLoadTest extends MapOpsLoadContract {
    @Override
    protected TransportUnderTest transport() throws Exception {
        return new ShmUnderTest();
    }
}
