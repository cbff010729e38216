package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.net.NetDevice;
import virtio.api.net.NetHeader;

import java.io.PrintStream;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Commands for network cards. */
@Component(
        service = NetCommands.class,
        property = {"osgi.command.scope=virtio", "osgi.command.function=pcap"})
public final class NetCommands {
    private static final String PCAP =
            "pcap NAME FILE [--runtime=10] [--count=1000000] [--snaplen=65553] [--json]";

    private final Cards cards;

    /** On the container's cards. */
    @Activate
    public NetCommands(@Reference Cards cards) {
        this.cards = cards;
    }

    /** Captures. */
    @Descriptor("capture a card's frames to a file for Wireshark: pcap net0 /tmp/net0.pcapng")
    public void pcap(CommandSession session, String... args) throws Exception {
        Arguments a = new Arguments(PCAP, args);
        PrintStream out = session.getConsole();
        if (a.help()) {
            out.println("usage: " + PCAP);
            return;
        }
        NetDevice card = cards.get(a.get(0));
        Path path = Path.of(a.get(1));
        int seconds = a.number("runtime", 10);
        int snaplen = a.number("snaplen", NetHeader.MAX_FRAME_BYTES);
        PcapFile file = new PcapFile(path, card.name(), snaplen, a.number("count", 1_000_000));
        try (file) {
            AutoCloseable tap = card.capture(file);
            try {
                file.await(TimeUnit.SECONDS.toMillis(seconds));
            } finally {
                tap.close();
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
}
