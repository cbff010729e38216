package virtio.transport.vhostuser;

import virtio.tck.MapOpsLoadContract;
import virtio.tck.TransportUnderTest;

class VhostUserMapOpsLoadTest extends MapOpsLoadContract {
    @Override
    protected TransportUnderTest transport() {
        return new VhostUserUnderTest();
    }
}
