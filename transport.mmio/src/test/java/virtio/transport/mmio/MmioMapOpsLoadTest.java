package virtio.transport.mmio;

import virtio.tck.MapOpsLoadContract;
import virtio.tck.TransportUnderTest;

class MmioMapOpsLoadTest extends MapOpsLoadContract {
    @Override
    protected TransportUnderTest transport() {
        return new MmioUnderTest();
    }
}
