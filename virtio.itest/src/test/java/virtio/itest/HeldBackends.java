package virtio.itest;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.api.backend.DeviceQueue;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** Backends {@code held:...} of another provider that leave requests in flight until told. */
final class HeldBackends implements BackendProvider {
    private final BackendProvider provider;
    private final Set<DeviceQueue> waiting = ConcurrentHashMap.newKeySet();
    private volatile boolean held;

    HeldBackends(BackendProvider provider) {
        this.provider = provider;
    }

    /** Serves nothing from here on. */
    void hold() {
        held = true;
    }

    /** Serves again, what has waited first. */
    void release() {
        held = false;
        waiting.forEach(DeviceQueue::schedule);
        waiting.clear();
    }

    @Override
    public String name() {
        return "held";
    }

    @Override
    public Backend open(String spec) throws VirtioException {
        return new Held(provider.open(spec));
    }

    private final class Held implements Backend {
        private final Backend backend;

        Held(Backend backend) {
            this.backend = backend;
        }

        @Override
        public int deviceType() {
            return backend.deviceType();
        }

        @Override
        public Features offered() {
            return backend.offered();
        }

        @Override
        public int queueCount() {
            return backend.queueCount();
        }

        @Override
        public int configSize() {
            return backend.configSize();
        }

        @Override
        public void readConfig(int offset, byte[] into) {
            backend.readConfig(offset, into);
        }

        @Override
        public void writeConfig(int offset, byte[] from) {
            backend.writeConfig(offset, from);
        }

        @Override
        public void onConfigChange(Runnable listener) {
            backend.onConfigChange(listener);
        }

        @Override
        public void accepted(Features features) {
            backend.accepted(features);
        }

        @Override
        public void queueStarted(DeviceQueue queue) {
            backend.queueStarted(queue);
        }

        @Override
        public void process(DeviceQueue queue) throws VirtioException {
            waiting.add(queue);
            if (!held) {
                waiting.remove(queue);
                backend.process(queue);
            }
        }

        @Override
        public void queueStopped(DeviceQueue queue) {
            waiting.remove(queue);
            backend.queueStopped(queue);
        }

        @Override
        public void close() {
            backend.close();
        }
    }
}
