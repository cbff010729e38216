package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.framework.Bundle;
import org.osgi.framework.BundleContext;
import org.osgi.framework.BundleException;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.VirtioBus;
import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;

import java.io.PrintStream;
import java.util.concurrent.TimeUnit;

/** A disk under a load that checks every block, while its parts are exchanged. */
@Component(
        service = LoadCommand.class,
        property = {"osgi.command.scope=virtio", "osgi.command.function=load"})
public final class LoadCommand {
    private static final String USAGE =
            """
            load NAME [--runtime=10] [--swap=pci:emu1] [--update=virtio.device.blk] [--count=4]
            --swap moves the disk to that address and back, --update updates that
            bundle, over and over again, --count times if the time is not over before.\
            """;
    private static final long DISK_TIMEOUT_MILLIS = 5_000;

    /** Requests between two exchanges. */
    private static final int PAUSE_REQUESTS = 200;

    private final BundleContext context;
    private final VirtioBus bus;
    private final Disks disks;

    /** In this container. */
    @Activate
    public LoadCommand(BundleContext context, @Reference VirtioBus bus, @Reference Disks disks) {
        this.context = context;
        this.bus = bus;
        this.disks = disks;
    }

    @Descriptor(
            "write and read a blank disk at random, every block checked: what was on it is lost")
    public void load(CommandSession session, String... args) throws Exception {
        Arguments a = Arguments.of(session, USAGE, args);
        if (a.help()) {
            return;
        }
        PrintStream out = session.getConsole();
        String name = a.get(0);
        String other = a.option("swap", null);
        String bundle = a.option("update", null);
        int count = a.number("count", Integer.MAX_VALUE);
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(a.number("runtime", 10));
        String own = address(name);
        Load load = new Load(disks, disks.await(name, DISK_TIMEOUT_MILLIS));
        Thread thread = Thread.ofPlatform().name("virtio-load " + name).start(load);
        int swaps = 0;
        int updates = 0;
        try {
            load.awaitMore(PAUSE_REQUESTS);
            out.printf("%s is under load%n", name);
            out.flush();
            while (System.nanoTime() - end < 0 && Math.max(swaps, updates) < count) {
                if (other != null) {
                    bus.swap(name, swaps % 2 == 0 ? other : own);
                    swaps++;
                }
                if (bundle != null) {
                    update(bundle);
                    updates++;
                }
                load.awaitMore(PAUSE_REQUESTS);
            }
        } finally {
            load.stop();
            thread.join();
        }
        load.check();
        Demo.readBack(disks.await(name, DISK_TIMEOUT_MILLIS), load);
        out.printf(
                "%d requests done, none lost, every block as acknowledged; %d swaps, %d updates,"
                        + " %d requests issued again%n",
                load.completed(), swaps, updates, load.repeated());
    }

    private String address(String name) throws VirtioException {
        for (DeviceSnapshot device : bus.devices()) {
            if (device.name().equals(name)) {
                return device.address();
            }
        }
        throw new VirtioException("no device " + name + " is attached");
    }

    private void update(String name) throws BundleException {
        for (Bundle bundle : context.getBundles()) {
            if (name.equals(bundle.getSymbolicName())) {
                bundle.stop(Bundle.STOP_TRANSIENT);
                bundle.update();
                bundle.start(Bundle.START_TRANSIENT);
                return;
            }
        }
        throw new BundleException("no bundle " + name);
    }
}
