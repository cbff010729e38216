package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.net.NetStatistics;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.ExportSnapshot;
import virtio.api.status.QueueSnapshot;
import virtio.api.transport.Candidate;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** Commands that show devices and exports: thin views of the bus. */
@Component(
        service = ViewCommands.class,
        property = {
            "osgi.command.scope=virtio",
            "osgi.command.function=ls",
            "osgi.command.function=show",
            "osgi.command.function=ring",
            "osgi.command.function=features",
            "osgi.command.function=why"
        })
public final class ViewCommands {
    private final VirtioBus bus;
    private final Disks disks;
    private final Cards cards;

    /** On the container's bus. */
    @Activate
    public ViewCommands(@Reference VirtioBus bus, @Reference Disks disks, @Reference Cards cards) {
        this.bus = bus;
        this.disks = disks;
        this.cards = cards;
    }

    @Descriptor("list devices and exports")
    public void ls(CommandSession session, String... args) {
        Arguments a = Arguments.of(session, "ls [--json]", args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        List<DeviceSnapshot> devices = bus.devices();
        List<ExportSnapshot> exports = bus.exports();
        if (a.has("json")) {
            Map<String, Object> all = new LinkedHashMap<>();
            all.put("devices", devices);
            all.put("exports", exports);
            out.println(Json.of(all));
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        rows.add(List.of("NAME", "TYPE", "STATE", "ADDRESS", "QUEUES", "DRIVER"));
        for (DeviceSnapshot device : devices) {
            rows.add(
                    List.of(
                            device.name(),
                            type(device.deviceType()),
                            device.state().name(),
                            device.address(),
                            Integer.toString(device.queues().size()),
                            Objects.requireNonNullElse(device.driver(), "-")));
        }
        print(out, rows);
        if (!exports.isEmpty()) {
            out.println();
            rows.clear();
            rows.add(List.of("EXPORT", "TYPE", "ADDRESS", "DRIVEN BY"));
            for (ExportSnapshot export : exports) {
                rows.add(
                        List.of(
                                export.backend(),
                                type(export.deviceType()),
                                export.address(),
                                export.reason() != null
                                        ? export.reason()
                                        : Objects.requireNonNullElse(export.driver(), "-")));
            }
            print(out, rows);
        }
    }

    @Descriptor("show one device: show blk0")
    public void show(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, "show NAME [--json]", args);
        if (a.help()) {
            return;
        }
        DeviceSnapshot d = device(a.get(0));
        Disks.View disk = disks.view(d.name());
        Cards.View card = cards.view(d.name());
        PrintStream out = session.getConsole();
        if (a.has("json")) {
            record Shown(DeviceSnapshot device, Disks.View disk, Cards.View card) {}
            out.println(Json.of(new Shown(d, disk, card)));
            return;
        }
        List<List<String>> facts = facts(d);
        if (disk != null) {
            facts.addAll(facts(disk));
        }
        if (card != null) {
            facts.addAll(facts(card));
        }
        print(out, facts);
        out.println();
        print(out, queues(d));
    }

    private static List<List<String>> facts(DeviceSnapshot d) {
        List<List<String>> facts = new ArrayList<>();
        facts.add(List.of("name", d.name()));
        facts.add(List.of("type", type(d.deviceType())));
        facts.add(List.of("state", d.state() + (d.reason() == null ? "" : ": " + d.reason())));
        facts.add(List.of("address", d.address()));
        facts.add(List.of("transport", Objects.requireNonNullElse(d.transport(), "-")));
        facts.add(List.of("driver", Objects.requireNonNullElse(d.driver(), "-")));
        facts.add(List.of("status", DeviceStatus.name(d.deviceStatus())));
        facts.add(List.of("features", names(d)));
        facts.add(List.of("swaps", Integer.toString(d.swaps())));
        facts.add(
                List.of(
                        "last pause",
                        d.swaps() == 0 ? "-" : DeviceCommands.millis(d.lastPauseNanos())));
        return facts;
    }

    private static List<List<String>> facts(Disks.View disk) {
        return List.of(
                List.of("capacity", disk.capacityBytes() + " bytes"),
                List.of("block size", disk.blockSize() + " bytes"),
                List.of("access", disk.readOnly() ? "read-only" : "read and write"),
                List.of("serial", disk.serial().isEmpty() ? "-" : disk.serial()));
    }

    private static List<List<String>> facts(Cards.View card) {
        List<List<String>> facts = new ArrayList<>();
        facts.add(List.of("hardware address", card.address()));
        facts.add(List.of("mtu", card.mtu() + " bytes"));
        facts.add(List.of("link", card.link()));
        facts.add(List.of("hashes", card.hash() == null ? "none" : card.hash().toString()));
        for (int i = 0; i < card.queuePairs(); i++) {
            NetStatistics.Pair pair = card.statistics().queues().get(i);
            String of = ", pair " + i;
            facts.add(List.of("notified" + of, Cards.text(card.coalescing().get(i))));
            facts.add(
                    List.of("received" + of, traffic(pair.receivedFrames(), pair.receivedBytes())));
            facts.add(List.of("sent" + of, traffic(pair.sentFrames(), pair.sentBytes())));
            facts.add(
                    List.of(
                            "dropped" + of,
                            pair.dropped().isEmpty() ? "none" : pair.dropped().toString()));
        }
        return facts;
    }

    private static String traffic(long frames, long bytes) {
        return "%d frames, %d bytes".formatted(frames, bytes);
    }

    private static List<List<String>> queues(DeviceSnapshot d) {
        List<List<String>> rows = new ArrayList<>();
        rows.add(List.of("QUEUE", "NAME", "LAYOUT", "SIZE", "FREE", "ADDED", "USED", "STATE"));
        for (QueueSnapshot q : d.queues()) {
            rows.add(
                    List.of(
                            Integer.toString(q.index()),
                            q.name(),
                            q.layout(),
                            Integer.toString(q.size()),
                            Integer.toString(q.free()),
                            Long.toString(q.added()),
                            Long.toString(q.used()),
                            q.broken() == null ? "works" : "broken: " + q.broken()));
        }
        return rows;
    }

    @Descriptor("show one virtqueue: ring blk0 0")
    public void ring(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, "ring NAME QUEUE [--json]", args);
        if (a.help()) {
            return;
        }
        List<QueueSnapshot> queues = device(a.get(0)).queues();
        QueueSnapshot queue =
                queues.stream()
                        .filter(q -> Integer.toString(q.index()).equals(a.get(1)))
                        .findFirst()
                        .orElseThrow(
                                () ->
                                        new VirtioException(
                                                "%s has no queue %s, it has %s"
                                                        .formatted(
                                                                a.get(0),
                                                                a.get(1),
                                                                queues.stream()
                                                                        .map(QueueSnapshot::index)
                                                                        .toList())));
        PrintStream out = session.getConsole();
        if (a.has("json")) {
            out.println(Json.of(queue));
            return;
        }
        print(
                out,
                List.of(
                        List.of("queue", queue.index() + " " + queue.name()),
                        List.of("layout", queue.layout()),
                        List.of("descriptors", queue.size() + ", " + queue.free() + " free"),
                        List.of("next available", Integer.toString(queue.availableIndex())),
                        List.of("next used", Integer.toString(queue.usedIndex())),
                        List.of("buffers added", Long.toString(queue.added())),
                        List.of("buffers used", Long.toString(queue.used())),
                        List.of("in flight", Long.toString(queue.added() - queue.used())),
                        List.of("notifications sent", Long.toString(queue.notifications())),
                        List.of("interrupts received", Long.toString(queue.interrupts())),
                        List.of("state", queue.broken() == null ? "works" : queue.broken())));
    }

    @Descriptor("show what was offered, wanted and accepted, bit by bit: features blk0")
    public void features(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, "features NAME [--json]", args);
        if (a.help()) {
            return;
        }
        DeviceSnapshot d = device(a.get(0));
        record Bit(int bit, String name, boolean offered, boolean wanted, boolean accepted) {}
        List<Bit> bits =
                d.offered().or(d.wanted()).or(d.accepted()).stream()
                        .mapToObj(
                                bit ->
                                        new Bit(
                                                bit,
                                                Feature.name(d.deviceType(), bit),
                                                d.offered().has(bit),
                                                d.wanted().has(bit),
                                                d.accepted().has(bit)))
                        .toList();
        PrintStream out = session.getConsole();
        if (a.has("json")) {
            out.println(Json.of(bits));
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        rows.add(List.of("BIT", "NAME", "OFFERED", "WANTED", "ACCEPTED"));
        for (Bit bit : bits) {
            rows.add(
                    List.of(
                            Integer.toString(bit.bit()),
                            bit.name(),
                            bit.offered() ? "yes" : "-",
                            bit.wanted() ? "yes" : "-",
                            bit.accepted() ? "yes" : "-"));
        }
        print(out, rows);
    }

    @Descriptor("say why something is not up: why, why blk0, why mmio:emu0")
    public void why(CommandSession session, String... args) {
        Arguments a = Arguments.of(session, "why [ADDRESS] [--json]", args);
        if (a.help()) {
            return;
        }
        List<Reason> reasons = reasons(a.get(0));
        PrintStream out = session.getConsole();
        if (a.has("json")) {
            out.println(Json.of(reasons));
        } else if (reasons.isEmpty()) {
            out.println("everything that was asked for is up");
        } else {
            reasons.forEach(r -> out.printf("%s: %s%n", r.about(), r.reason()));
        }
    }

    private record Reason(String about, String reason) {}

    /**
     * What is not up, and why.
     *
     * @param about name or address that alone is of interest, also when it is up; null for all
     */
    private List<Reason> reasons(String about) {
        List<Reason> reasons = new ArrayList<>();
        List<DeviceSnapshot> devices = bus.devices();
        for (DeviceSnapshot d : devices) {
            if (about == null || about.equals(d.name()) || about.equals(d.address())) {
                if (d.reason() != null) {
                    reasons.add(new Reason(d.name() + " at " + d.address(), d.reason()));
                } else if (about != null) {
                    reasons.add(new Reason(about, "is up: " + d.name() + " at " + d.address()));
                }
            }
        }
        for (ExportSnapshot e : bus.exports()) {
            if (e.reason() != null && (about == null || about.equals(e.address()))) {
                reasons.add(
                        new Reason("export of " + e.backend() + " at " + e.address(), e.reason()));
            }
        }
        for (Candidate c : bus.candidates()) {
            // What an attached one is busy with is said above.
            if (devices.stream().noneMatch(d -> d.address().equals(c.address()))
                    && isAsked(about, c)) {
                reasons.add(
                        new Reason(
                                isWhole(c)
                                        ? c.address().substring(0, c.address().length() - 1)
                                        : c.address(),
                                c.unavailable() != null
                                        ? c.unavailable()
                                        : c.description() + ", can be attached"));
            }
        }
        if (about != null && reasons.isEmpty()) {
            reasons.add(
                    new Reason(
                            about,
                            "is neither attached nor found by any transport; attach it to see"
                                    + " why"));
        }
        return reasons;
    }

    private static boolean isAsked(String about, Candidate c) {
        if (about == null) {
            return c.unavailable() != null;
        }
        return about.equals(c.address()) || isWhole(c) && about.startsWith(c.address());
    }

    /** A transport that can do nothing here says so of all of its addresses. */
    private static boolean isWhole(Candidate c) {
        return c.address().endsWith(":");
    }

    private DeviceSnapshot device(String name) throws VirtioException {
        List<DeviceSnapshot> devices = bus.devices();
        for (DeviceSnapshot device : devices) {
            if (device.name().equals(name)) {
                return device;
            }
        }
        throw Disks.missing("device", name, devices.stream().map(DeviceSnapshot::name).toList());
    }

    private static String names(DeviceSnapshot device) {
        return String.join(
                " ",
                device.accepted().stream()
                        .mapToObj(bit -> Feature.name(device.deviceType(), bit))
                        .toList());
    }

    private static String type(int deviceType) {
        return deviceType == 0 ? "-" : DeviceType.name(deviceType);
    }

    private static void print(PrintStream out, List<List<String>> rows) {
        int columns = rows.getFirst().size();
        for (List<String> row : rows) {
            StringBuilder line = new StringBuilder();
            for (int i = 0; i < columns; i++) {
                int column = i;
                int width = rows.stream().mapToInt(r -> r.get(column).length()).max().orElse(0);
                line.append(row.get(i));
                if (i < columns - 1) {
                    line.repeat(' ', width - row.get(i).length() + 2);
                }
            }
            out.println(line.toString().stripTrailing());
        }
    }
}
