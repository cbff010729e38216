package virtio.tck;

import virtio.api.VirtioException;
import virtio.api.transport.Transport;

/** A listener that does nothing, for tests to override one method of. */
class TestListener implements Transport.Listener {
    @Override
    public void queueUsed(int queue) {}

    @Override
    public void configChanged() {}

    @Override
    public void gone(VirtioException reason) {}
}
