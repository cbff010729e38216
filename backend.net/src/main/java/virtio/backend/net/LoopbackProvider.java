package virtio.backend.net;

import org.osgi.service.component.annotations.Component;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;

/**
 * Cards that receive what they send: {@code loopback:[NAME][,mac=ADDRESS][,mtu=N][,pairs=N]
 * [,speed=MEGABITS][,without=FEATURE]…}.
 */
@Component
public final class LoopbackProvider implements BackendProvider {
    @Override
    public String name() {
        return "loopback";
    }

    @Override
    public Backend open(String spec) throws VirtioException {
        NetSpec parsed = NetSpec.parse(spec);
        if (!parsed.taps().isEmpty()) {
            throw new VirtioException("option tap is for a switch");
        }
        return new NetBackend(parsed, new Loopback(), false);
    }

    private static final class Loopback implements Link {
        @Override
        public void send(Port from, Sender sender) {
            from.deliver(sender);
        }

        @Override
        public void leave(Port port) {}
    }
}
