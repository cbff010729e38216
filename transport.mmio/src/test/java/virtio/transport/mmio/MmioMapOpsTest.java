package virtio.transport.mmio;

import virtio.tck.MapOpsContract;
import virtio.tck.TransportUnderTest;

class MmioMapOpsTest extends MapOpsContract {
    @Override
    protected TransportUnderTest transport() {
        return new MmioUnderTest();
    }
}
