package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.Registration;
import virtio.api.VirtioException;
import virtio.api.net.Coalescing;
import virtio.api.net.HashConfig;
import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetDevice;
import virtio.api.net.NetHeader;

import java.io.PrintStream;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** Commands for network cards. */
@Component(
        service = NetCommands.class,
        property = {
            "osgi.command.scope=virtio",
            "osgi.command.function=pcap",
            "osgi.command.function=hash",
            "osgi.command.function=coalesce"
        })
public final class NetCommands {
    private static final String PCAP =
            """
            pcap NAME FILE [--runtime=10] [--count=1000000] [--snaplen=65553] [--json]
            shows what consumers send and receive: a card without any shows nothing\
            """;

    private static final String HASH =
            "hash NAME [--types=UDPV4,TCPV4] [--key=6d5a] [--table=0,1] [--unclassified=0]"
                    + " [--json]";

    private static final String COALESCE =
            "coalesce NAME [--pair=0] [--rxframes=0] [--rxusecs=0] [--txframes=0] [--txusecs=0]"
                    + " [--json]";

    private final Cards cards;

    /** On the container's cards. */
    @Activate
    public NetCommands(@Reference Cards cards) {
        this.cards = cards;
    }

    @Descriptor("capture a card's frames to a file for Wireshark: pcap net0 /tmp/net0.pcapng")
    public void pcap(CommandSession session, String... args) throws Exception {
        Arguments a = Arguments.of(session, PCAP, args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        NetDevice card = cards.get(a.get(0));
        Path path = Path.of(a.get(1));
        int seconds = a.number("runtime", 10);
        int snaplen = a.number("snaplen", NetHeader.MAX_FRAME_BYTES);
        PcapFile file = new PcapFile(path, card.name(), snaplen, a.number("count", 1_000_000));
        try (file) {
            try (Registration _ = card.capture(file)) {
                file.await(TimeUnit.SECONDS.toMillis(seconds));
            }
        }
        record Captured(String file, long frames, long missed) {}
        Captured captured = new Captured(path.toString(), file.written(), file.missed());
        if (a.has("json")) {
            out.println(Json.of(captured));
        } else {
            out.printf(
                    "%d frames in %s%s%n",
                    captured.frames(),
                    captured.file(),
                    captured.missed() == 0
                            ? ""
                            : ", %d came too fast and are not".formatted(captured.missed()));
        }
    }

    @Descriptor(
            "what a card hashes of received packets, and which queue pair gets them by it:"
                    + " hash net0 --types=all --table=0,1; all or none are types as well")
    public void hash(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, HASH, args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        NetDevice card = cards.get(a.get(0));
        if (a.has("types")) {
            card.hash(
                    new HashConfig(
                            types(card, a.option("types", "")),
                            key(a.option("key", null)),
                            numbers(a.option("table", "")),
                            a.number("unclassified", 0, 0)));
        } else if (a.has("key") || a.has("table") || a.has("unclassified")) {
            throw new VirtioException("what is hashed? --types=all, or " + card.hashTypes());
        }
        Cards.View view = Cards.View.of(card);
        if (a.has("json")) {
            out.println(Json.of(view.hash()));
        } else {
            out.printf(
                    "%s hashes %s; it can %s%n",
                    card.name(),
                    view.hash() == null ? "nothing" : view.hash(),
                    view.hashTypes().isEmpty() ? "not" : view.hashTypes());
        }
    }

    private static Set<HashType> types(NetDevice card, String text) throws VirtioException {
        if (text.equals("all")) {
            return card.hashTypes();
        }
        Set<HashType> types = EnumSet.noneOf(HashType.class);
        try {
            for (String name : text.equals("none") ? new String[0] : text.split(",")) {
                types.add(HashType.valueOf(name));
            }
        } catch (IllegalArgumentException e) {
            throw new VirtioException(
                    "hash types %s: there are all, none and %s"
                            .formatted(text, List.of(HashType.values())),
                    e);
        }
        return types;
    }

    /** A random one where none is given. */
    private static byte[] key(String hex) throws VirtioException {
        if (hex == null) {
            byte[] key = new byte[NetConfig.HASH_KEY_BYTES];
            new SecureRandom().nextBytes(key);
            return key;
        }
        try {
            return HexFormat.of().parseHex(hex);
        } catch (IllegalArgumentException e) {
            throw new VirtioException("key: " + e.getMessage(), e);
        }
    }

    private static List<Integer> numbers(String text) throws VirtioException {
        try {
            return Stream.of(text.split(","))
                    .filter(n -> !n.isEmpty())
                    .map(Integer::valueOf)
                    .toList();
        } catch (NumberFormatException e) {
            throw new VirtioException("table %s: numbers of queue pairs".formatted(text), e);
        }
    }

    @Descriptor(
            "how long a card may wait before it tells of frames received and sent:"
                    + " coalesce net0 --rxframes=32 --rxusecs=100")
    public void coalesce(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, COALESCE, args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        NetDevice card = cards.get(a.get(0));
        int pair = a.number("pair", 0, 0);
        Coalescing now = card.coalescing(pair);
        Coalescing wanted =
                new Coalescing(
                        a.number("rxframes", now.receivePackets(), 0),
                        a.number("rxusecs", now.receiveMicros(), 0),
                        a.number("txframes", now.sendPackets(), 0),
                        a.number("txusecs", now.sendMicros(), 0));
        if (Stream.of("rxframes", "rxusecs", "txframes", "txusecs").anyMatch(a::has)) {
            if (a.has("pair")) {
                card.coalescing(pair, wanted);
            } else {
                card.coalescing(wanted);
            }
        }
        List<Coalescing> all = Cards.View.of(card).coalescing();
        if (a.has("json")) {
            out.println(Json.of(all));
        } else {
            for (int i = 0; i < all.size(); i++) {
                out.printf("%s, pair %d: notified %s%n", card.name(), i, Cards.text(all.get(i)));
            }
        }
    }
}
