package virtio.shell;

import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;
import org.osgi.service.component.annotations.ReferenceCardinality;
import org.osgi.service.component.annotations.ReferencePolicy;

import virtio.api.VirtioException;
import virtio.api.net.NetDevice;
import virtio.api.net.NetStatistics;

import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;

/** The container's network cards by name, as they come and go. */
@Component(service = Cards.class)
public final class Cards {
    private final Map<String, NetDevice> byName = new ConcurrentHashMap<>();

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void add(NetDevice card) {
        byName.put(card.name(), card);
    }

    void remove(NetDevice card) {
        byName.remove(card.name(), card);
    }

    /** What a card says of itself. */
    record View(
            String address,
            int mtu,
            boolean linkUp,
            int speedMegabits,
            int queuePairs,
            NetStatistics statistics) {}

    /** The card of that name as it is now; null when there is none. */
    View view(String name) {
        NetDevice card = byName.get(name);
        return card == null
                ? null
                : new View(
                        HexFormat.ofDelimiter(":").formatHex(card.macAddress()),
                        card.mtu(),
                        card.linkUp(),
                        card.speedMegabits(),
                        card.queuePairs(),
                        card.statistics());
    }

    /** The card of that name; an error that lists those there are. */
    NetDevice get(String name) throws VirtioException {
        NetDevice card = byName.get(name);
        if (card == null) {
            throw Disks.missing("card", name, new TreeMap<>(byName).keySet());
        }
        return card;
    }
}
