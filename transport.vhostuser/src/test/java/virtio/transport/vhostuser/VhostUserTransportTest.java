package virtio.transport.vhostuser;

import virtio.tck.TransportContract;
import virtio.tck.TransportUnderTest;

class VhostUserTransportTest extends TransportContract {
    @Override
    protected TransportUnderTest transport() {
        return new VhostUserUnderTest();
    }
}
