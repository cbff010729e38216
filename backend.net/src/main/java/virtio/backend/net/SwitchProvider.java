package virtio.backend.net;

import org.osgi.service.component.annotations.Component;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Cards on switches: {@code switch:NAME[,mac=ADDRESS][,mtu=N][,pairs=N][,speed=MEGABITS][,tap=IF]…
 * [,without=FEATURE]…}. All that name one switch are its ports; a TAP interface is one as long as
 * the card that brought it.
 */
@Component
public final class SwitchProvider implements BackendProvider {
    private final Map<String, Switch> switches = new HashMap<>();

    @Override
    public String name() {
        return "switch";
    }

    @Override
    public Backend open(String spec) throws VirtioException {
        NetSpec parsed = NetSpec.parse(spec);
        if (parsed.target().isEmpty()) {
            throw new VirtioException("a switch needs a name, as switch:lan");
        }
        synchronized (switches) {
            Switch network = switches.computeIfAbsent(parsed.target(), name -> new Switch());
            try {
                return card(parsed, network, () -> forget(parsed.target(), network));
            } catch (VirtioException e) {
                forget(parsed.target(), network);
                throw e;
            }
        }
    }

    private void forget(String name, Switch network) {
        synchronized (switches) {
            if (network.isEmpty()) {
                switches.remove(name, network);
            }
        }
    }

    /** A card with its TAP interfaces, on a switch; {@code gone} runs when they have left. */
    static NetBackend card(NetSpec spec, Switch network, Runnable gone) throws VirtioException {
        List<TapPort> taps = new ArrayList<>();
        try {
            for (String tap : spec.taps()) {
                taps.add(TapPort.open(tap, network));
            }
        } catch (VirtioException e) {
            taps.forEach(TapPort::close);
            throw e;
        }
        Link link =
                new Link() {
                    @Override
                    public void send(Port from, Sender sender) {
                        network.send(from, sender);
                    }

                    @Override
                    public void leave(Port port) {
                        taps.forEach(TapPort::close);
                        network.leave(port);
                        gone.run();
                    }
                };
        NetBackend card = new NetBackend(spec, link, true);
        network.join(card);
        return card;
    }
}
