package virtio.guest.hashes;

import org.osgi.framework.BundleActivator;
import org.osgi.framework.BundleContext;
import org.osgi.framework.ServiceReference;

import virtio.api.Registration;
import virtio.api.net.FramePort;
import virtio.api.net.NetDevice;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.util.Dictionary;
import java.util.Hashtable;
import java.util.HexFormat;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * What a device reports of the packets that it delivers. A bundle for a container in a guest, where
 * it is the command {@code hashes NAME COUNT}.
 */
public final class Hashes implements BundleActivator {
    private static final int WAIT_SECONDS = 60;

    private final LinkedBlockingQueue<String> reports = new LinkedBlockingQueue<>();
    private BundleContext context;

    @Override
    public void start(BundleContext bundle) {
        context = bundle;
        Dictionary<String, Object> command = new Hashtable<>();
        command.put("osgi.command.scope", "test");
        command.put("osgi.command.function", "hashes");
        bundle.registerService(Hashes.class, this, command);
    }

    @Override
    public void stop(BundleContext bundle) {
        // The service goes with the bundle.
    }

    /** The command: addresses and ports of so many IPv4 packets, and what is said of them. */
    public void hashes(String name, int count) throws Exception {
        ServiceReference<NetDevice> reference =
                context.getServiceReferences(NetDevice.class, "(virtio.name=" + name + ")")
                        .iterator()
                        .next();
        NetDevice card = context.getService(reference);
        try (FramePort _ = card.openPort(0, frame -> {});
                FramePort _ = card.openPort(1, frame -> {});
                Registration _ = card.capture(this::frame)) {
            System.out.println(name + " listens");
            for (int i = 0; i < count; i++) {
                String report = reports.poll(WAIT_SECONDS, TimeUnit.SECONDS);
                System.out.println(report == null ? "nothing comes" : "hashed " + report);
            }
        } finally {
            context.ungetService(reference);
        }
    }

    private void frame(int pair, boolean received, PacketBuffer frame) {
        byte[] bytes = new byte[38];
        if (!received || frame.frameLength() < bytes.length) {
            return;
        }
        frame.copyTo(0, MemorySegment.ofArray(bytes), 0, bytes.length);
        if (bytes[12] == 8 && bytes[13] == 0) {
            String input = HexFormat.of().formatHex(bytes, 26, 38);
            reports.add("%s %s %08x on %d".formatted(input, frame.hashType(), frame.hash(), pair));
        }
    }
}
