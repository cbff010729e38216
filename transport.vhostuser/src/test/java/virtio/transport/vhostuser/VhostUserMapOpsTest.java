package virtio.transport.vhostuser;

import virtio.tck.MapOpsContract;
import virtio.tck.TransportUnderTest;

class VhostUserMapOpsTest extends MapOpsContract {
    @Override
    protected TransportUnderTest transport() {
        return new VhostUserUnderTest();
    }
}
