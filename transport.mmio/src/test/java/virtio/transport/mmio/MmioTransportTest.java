package virtio.transport.mmio;

import virtio.tck.TransportContract;
import virtio.tck.TransportUnderTest;

class MmioTransportTest extends TransportContract {
    @Override
    protected TransportUnderTest transport() {
        return new MmioUnderTest();
    }
}
