package virtio.transport.vduse;

import virtio.tck.MapOpsContract;
import virtio.tck.TransportUnderTest;

class VduseMapOpsTest extends MapOpsContract {
    @Override
    protected TransportUnderTest transport() {
        return new VduseUnderTest();
    }
}
