package virtio.backend.net;

import org.osgi.service.component.annotations.Component;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;

/**
 * Cards at the other end of a TAP interface of the host: {@code tap:IF[,mac=ADDRESS][,mtu=N]
 * [,pairs=N][,speed=MEGABITS][,without=FEATURE]…}.
 */
@Component
public final class TapProvider implements BackendProvider {
    @Override
    public String name() {
        return "tap";
    }

    @Override
    public Backend open(String spec) throws VirtioException {
        NetSpec parsed = NetSpec.parse(spec);
        if (!parsed.taps().isEmpty()) {
            throw new VirtioException("option tap is for a switch");
        }
        // Two ports on a switch of their own are a cable.
        return SwitchProvider.card(parsed.withTap(parsed.target()), new Switch(), () -> {});
    }
}
