package virtio.transport.vduse;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;

/**
 * A program for a guest that serves disks badly: {@code refusing} takes no features, {@code lying}
 * uses buffers that nobody has offered, {@code mute} answers nothing.
 */
public final class RogueServer {
    private static final int SECTORS = 2048;
    private static final int QUEUE_SIZE = 64;
    private static final int NOBODYS_BUFFER = 9999;

    private final String name;
    private final VduseDevice device;
    private final EventFd kick = EventFd.create();

    private RogueServer(String name, VduseDevice device) throws LinuxException {
        this.name = name;
        this.device = device;
    }

    /** Without arguments; ends when it is killed. */
    public static void main(String[] args) throws Exception {
        VduseControl control = new VduseControl(new VdpaBus(Path.of("/")));
        Features features = Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM);
        byte[] config = new byte[60];
        ByteBuffer.wrap(config).order(ByteOrder.LITTLE_ENDIAN).putLong(0, SECTORS);
        for (String name : new String[] {"refusing", "lying", "mute"}) {
            control.create(name, DeviceType.BLOCK, features.word(0), 1, config);
            RogueServer server = new RogueServer(name, control.open(name, 1));
            server.device.setUpQueue(0, QUEUE_SIZE);
            if (!name.equals("mute")) {
                Thread.ofPlatform().start(server::run);
            }
            control.addToBus(name);
        }
        System.out.println("rogues are on the bus");
        Thread.currentThread().join();
    }

    private void run() {
        try {
            while (true) {
                VduseDevice.Request request = device.read();
                if (request == null) {
                    device.file().poll(FileDescriptor.IN, -1);
                    continue;
                }
                boolean status = request.type() == VduseDevice.SET_STATUS;
                boolean refused =
                        status
                                && name.equals("refusing")
                                && (request.argument() & DeviceStatus.FEATURES_OK) != 0;
                device.reply(request, !refused, 0);
                if (status && (request.argument() & DeviceStatus.DRIVER_OK) != 0) {
                    lie();
                }
            }
        } catch (LinuxException e) {
            throw new IllegalStateException(name, e);
        }
    }

    /** Answers the first notification with an element that no driver can expect. */
    private void lie() throws LinuxException {
        device.kick(0, kick);
        kick.file().poll(FileDescriptor.IN, -1);
        VduseDevice.QueueInfo queue = device.queueInfo(0);
        VduseDevice.Region region = device.region(queue.deviceArea(), queue.deviceArea());
        long bytes = region.last() - region.start() + 1;
        try (FileDescriptor file = region.file();
                Mapping mapping = Mapping.map(file, region.offset(), bytes, true)) {
            MemorySegment used = mapping.segment().asSlice(queue.deviceArea() - region.start());
            used.set(JAVA_INT, 4, NOBODYS_BUFFER);
            used.set(JAVA_INT, 8, -1);
            used.set(JAVA_SHORT, 2, (short) 1);
        }
        device.interrupt(0);
    }
}
