package virtio.ring.queue;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.DeviceQueue;

/** A backend that is nothing but its processing. */
record OneBackend(Processing processing) implements Backend {
    interface Processing {
        void process(DeviceQueue queue) throws VirtioException;
    }

    @Override
    public void process(DeviceQueue queue) throws VirtioException {
        processing.process(queue);
    }

    @Override
    public int deviceType() {
        return 0;
    }

    @Override
    public Features offered() {
        return Features.NONE;
    }

    @Override
    public int queueCount() {
        return 1;
    }

    @Override
    public int configSize() {
        return 0;
    }

    @Override
    public void readConfig(int offset, byte[] into) {}

    @Override
    public void writeConfig(int offset, byte[] from) {}

    @Override
    public void onConfigChange(Runnable listener) {}

    @Override
    public void accepted(Features features) {}

    @Override
    public void close() {}
}
