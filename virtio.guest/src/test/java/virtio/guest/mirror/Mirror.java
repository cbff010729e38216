package virtio.guest.mirror;

import org.osgi.framework.BundleActivator;
import org.osgi.framework.BundleContext;
import org.osgi.framework.InvalidSyntaxException;
import org.osgi.framework.ServiceReference;

import virtio.api.net.FramePort;
import virtio.api.net.NetDevice;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Dictionary;
import java.util.Hashtable;
import java.util.HexFormat;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Frames for a card. A bundle for a container in a guest, where it is the commands {@code mirror
 * NAME}, for a card whose device gives back what is sent, and {@code hear NAME}.
 */
public final class Mirror implements BundleActivator {
    private static final byte[] ADDRESS = {0x52, 0x54, 0, 0x12, 0x34, 0x57};
    private static final int WAIT_SECONDS = 20;

    private BundleContext context;

    @Override
    public void start(BundleContext bundle) {
        context = bundle;
        Dictionary<String, Object> command = new Hashtable<>();
        command.put("osgi.command.scope", "test");
        command.put("osgi.command.function", new String[] {"mirror", "hear"});
        bundle.registerService(Mirror.class, this, command);
    }

    @Override
    public void stop(BundleContext bundle) {
        // The service goes with the bundle.
    }

    private ServiceReference<NetDevice> card(String name) throws InvalidSyntaxException {
        return context.getServiceReferences(NetDevice.class, "(virtio.name=" + name + ")")
                .iterator()
                .next();
    }

    /** Waits for a frame; who sent it and of what type it is. */
    public void hear(String name) throws Exception {
        ServiceReference<NetDevice> reference = card(name);
        BlockingQueue<byte[]> received = new LinkedBlockingQueue<>();
        try (FramePort _ =
                context.getService(reference)
                        .openPort(0, frame -> received.add(frame.toArray(ValueLayout.JAVA_BYTE)))) {
            byte[] frame = received.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            if (frame == null) {
                throw new IllegalStateException("nothing was heard");
            }
            HexFormat hex = HexFormat.ofDelimiter(":");
            System.out.printf(
                    "to %s, type %02x%02x%n", hex.formatHex(frame, 0, 6), frame[12], frame[13]);
        } finally {
            context.ungetService(reference);
        }
    }

    /** Sets the address, and sends frames of many sizes to it. */
    public void mirror(String name) throws Exception {
        ServiceReference<NetDevice> reference = card(name);
        NetDevice card = context.getService(reference);
        BlockingQueue<byte[]> received = new LinkedBlockingQueue<>();
        Random random = new Random(7);
        int frames = 0;
        try (FramePort port =
                card.openPort(0, frame -> received.add(frame.toArray(ValueLayout.JAVA_BYTE)))) {
            card.macAddress(ADDRESS);
            for (int bytes = 60; bytes <= 1514; bytes += 37) {
                byte[] frame = new byte[bytes];
                random.nextBytes(frame);
                System.arraycopy(ADDRESS, 0, frame, 0, ADDRESS.length);
                port.send(MemorySegment.ofArray(frame));
                byte[] back = received.poll(WAIT_SECONDS, TimeUnit.SECONDS);
                if (!Arrays.equals(frame, back)) {
                    throw new IllegalStateException(
                            "frame of %d bytes: %s came back"
                                    .formatted(
                                            bytes,
                                            back == null ? "none" : back.length + " other bytes"));
                }
                frames++;
            }
        } finally {
            context.ungetService(reference);
        }
        System.out.println(frames + " frames came back as they were sent");
    }
}
