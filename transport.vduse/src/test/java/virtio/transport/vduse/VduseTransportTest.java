package virtio.transport.vduse;

import virtio.tck.TransportContract;
import virtio.tck.TransportUnderTest;

class VduseTransportTest extends TransportContract {
    @Override
    protected TransportUnderTest transport() {
        return new VduseUnderTest();
    }
}
