package virtio.transport.pci;

import virtio.tck.MapOpsContract;
import virtio.tck.TransportUnderTest;

class PciMapOpsTest extends MapOpsContract {
    @Override
    protected TransportUnderTest transport() {
        return new PciUnderTest();
    }
}
