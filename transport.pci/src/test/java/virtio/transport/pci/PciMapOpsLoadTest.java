package virtio.transport.pci;

import virtio.tck.MapOpsLoadContract;
import virtio.tck.TransportUnderTest;

class PciMapOpsLoadTest extends MapOpsLoadContract {
    @Override
    protected TransportUnderTest transport() {
        return new PciUnderTest();
    }
}
