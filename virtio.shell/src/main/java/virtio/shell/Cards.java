package virtio.shell;

import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;
import org.osgi.service.component.annotations.ReferenceCardinality;
import org.osgi.service.component.annotations.ReferencePolicy;

import virtio.api.VirtioException;
import virtio.api.net.Coalescing;
import virtio.api.net.Duplex;
import virtio.api.net.HashConfig;
import virtio.api.net.HashType;
import virtio.api.net.NetDevice;
import virtio.api.net.NetStatistics;

import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;

/** The container's network cards by name, as they come and go. */
@Component(service = Cards.class)
public final class Cards {
    private final Map<String, NetDevice> byName = new ConcurrentHashMap<>();

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void addCard(NetDevice card) {
        byName.put(card.name(), card);
    }

    void removeCard(NetDevice card) {
        byName.remove(card.name(), card);
    }

    /**
     * What a card says of itself.
     *
     * @param hashTypes what it can hash
     * @param hash what it hashes; null for nothing
     * @param coalescing by queue pair
     */
    record View(
            String address,
            int mtu,
            boolean linkUp,
            int speedMegabits,
            Duplex duplex,
            int queuePairs,
            Set<HashType> hashTypes,
            Hash hash,
            List<Coalescing> coalescing,
            NetStatistics statistics) {
        static View of(NetDevice card) {
            return new View(
                    HexFormat.ofDelimiter(":").formatHex(card.macAddress()),
                    card.mtu(),
                    card.linkUp(),
                    card.speedMegabits(),
                    card.duplex(),
                    card.queuePairs(),
                    card.hashTypes(),
                    Hash.of(card.hash()),
                    IntStream.range(0, card.queuePairs()).mapToObj(card::coalescing).toList(),
                    card.statistics());
        }

        /** As {@code up, 10000 Mbit/s, full duplex}. */
        String link() {
            String speed = speedMegabits < 0 ? "" : ", " + speedMegabits + " Mbit/s";
            String both =
                    duplex == Duplex.UNKNOWN
                            ? ""
                            : ", " + duplex.toString().toLowerCase(Locale.ROOT) + " duplex";
            return (linkUp ? "up" : "down") + speed + both;
        }
    }

    /** What is hashed, without the key: that is a secret. */
    record Hash(Set<HashType> types, int keyBytes, List<Integer> table, int unclassified) {
        static Hash of(HashConfig config) {
            return config == null
                    ? null
                    : new Hash(
                            new TreeSet<>(config.types()),
                            config.key().length,
                            config.table(),
                            config.unclassified());
        }

        @Override
        public String toString() {
            return "%s, key of %d bytes, %s"
                    .formatted(
                            types,
                            keyBytes,
                            table.isEmpty()
                                    ? "no table"
                                    : "table of %d, unclassified to pair %d"
                                            .formatted(table.size(), unclassified));
        }
    }

    /** As {@code after 32 frames or 100 us received, at once sent}. */
    static String text(Coalescing c) {
        return "%s received, %s sent"
                .formatted(
                        text(c.receivePackets(), c.receiveMicros()),
                        text(c.sendPackets(), c.sendMicros()));
    }

    private static String text(int packets, int micros) {
        return packets == 0 || micros == 0
                ? "at once"
                : "after %d frames or %d us".formatted(packets, micros);
    }

    /** The card of that name as it is now; null when there is none. */
    View view(String name) {
        NetDevice card = byName.get(name);
        return card == null ? null : View.of(card);
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
