package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.ExportSnapshot;
import virtio.api.status.SwapResult;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Commands that change what is exported and attached. */
@Component(
        service = DeviceCommands.class,
        property = {
            "osgi.command.scope=virtio",
            "osgi.command.function=export",
            "osgi.command.function=unexport",
            "osgi.command.function=attach",
            "osgi.command.function=detach",
            "osgi.command.function=swap",
            "osgi.command.function=serve"
        })
public final class DeviceCommands {
    private static final Path INPUT = Path.of("/proc/self/fd/0");
    private static final Path NOTHING = Path.of("/dev/null");

    private static final String EXPORT =
            """
            export BACKEND ADDRESS
            backends:
              ram:SIZE, file:PATH, each with
                  [,readonly][,blocksize=BYTES][,queues=N][,serial=TEXT]
              loopback:[NAME], switch:NAME[,tap=INTERFACE]..., tap:INTERFACE, each with
                  [,mac=ADDRESS][,mtu=BYTES][,pairs=N][,speed=MEGABITS][,without=FEATURE]...
            addresses:
              mmio:NAME, pci:NAME
              vhost-user:PATH[,without=FEATURE]...
              vduse:NAME[,keep][,split]\
            """;

    private static final String ADDRESSES =
            """

            addresses:
              mmio:NAME, pci:NAME: what is exported here
              mmio:0xADDRESS[,interrupt=/dev/uioN|poll]: a window of the machine
              pci:0000:00:04.0: a function of the machine
              vhost-user:PATH[,type=blk|net][,without=FEATURE]...
              vhost-vdpa:/dev/vhost-vdpa-N, vhost-vdpa:NAME\
            """;

    private static final String ATTACH = "attach ADDRESS [--name=blk0]" + ADDRESSES;
    private static final String SWAP = "swap NAME ADDRESS [--json]" + ADDRESSES;

    private final VirtioBus bus;

    /** On the container's bus. */
    @Activate
    public DeviceCommands(@Reference VirtioBus bus) {
        this.bus = bus;
    }

    @Descriptor("offer a backend: export ram:64MiB mmio:emu0")
    public void export(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, EXPORT, args);
        if (!a.help()) {
            ExportSnapshot export = bus.export(a.get(0), a.get(1));
            session.getConsole().printf("%s exported at %s%n", export.backend(), export.address());
        }
    }

    @Descriptor("take an export back: unexport mmio:emu0")
    public void unexport(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, "unexport ADDRESS", args);
        if (!a.help()) {
            bus.unexport(a.get(0));
            session.getConsole().printf("%s withdrawn%n", a.get(0));
        }
    }

    @Descriptor("attach a device: attach mmio:emu0 --name blk0")
    public void attach(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, ATTACH, args);
        if (!a.help()) {
            DeviceSnapshot device = bus.attach(a.get(0), a.option("name", null));
            session.getConsole().printf("%s attached to %s%n", device.name(), device.address());
        }
    }

    @Descriptor("let a device go: detach blk0")
    public void detach(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, "detach NAME", args);
        if (!a.help()) {
            bus.detach(a.get(0));
            session.getConsole().printf("%s detached%n", a.get(0));
        }
    }

    @Descriptor("move a device to another address while it is in use: swap blk0 mmio:emu1")
    public void swap(CommandSession session, String... args) throws VirtioException {
        Arguments a = Arguments.of(session, SWAP, args);
        if (a.help()) {
            return;
        }
        SwapResult swap = bus.swap(a.get(0), a.get(1));
        PrintStream out = session.getConsole();
        if (a.has("json")) {
            out.println(Json.of(swap));
        } else {
            out.printf(
                    "%s moved from %s to %s, paused for %s%n",
                    swap.name(), swap.from(), swap.to(), millis(swap.pauseNanos()));
        }
    }

    @Descriptor("keep exports up until the input ends or the process is told to stop")
    public void serve(CommandSession session, String... args)
            throws IOException, InterruptedException {
        Arguments a = Arguments.of(session, "serve", args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        for (ExportSnapshot export : bus.exports()) {
            out.printf("serving %s at %s%n", export.backend(), export.address());
        }
        out.flush();
        if (Files.isSameFile(INPUT, NOTHING)) {
            new CountDownLatch(1).await(); // A service's input never begins, so it does not end.
        }
        while (session.getKeyboard().read() >= 0) {
            // Only the end of the input means something.
        }
    }

    static String millis(long nanos) {
        return "%.2f ms".formatted(nanos / (double) TimeUnit.MILLISECONDS.toNanos(1));
    }
}
