package virtio.transport.pci;

import virtio.tck.TransportContract;
import virtio.tck.TransportUnderTest;

class PciTransportTest extends TransportContract {
    @Override
    protected TransportUnderTest transport() {
        return new PciUnderTest();
    }
}
