package virtio.transport.vduse;

import virtio.tck.MapOpsLoadContract;
import virtio.tck.TransportUnderTest;

class VduseMapOpsLoadTest extends MapOpsLoadContract {
    @Override
    protected TransportUnderTest transport() {
        return new VduseUnderTest();
    }
}
