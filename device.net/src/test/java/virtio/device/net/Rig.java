package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import virtio.api.VirtioException;
import virtio.api.backend.BackendProvider;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;
import virtio.backend.net.LoopbackProvider;
import virtio.backend.net.SwitchProvider;
import virtio.ring.Core;
import virtio.transport.mmio.MmioMapOps;
import virtio.transport.mmio.MmioProvider;
import virtio.transport.vhostuser.VhostUserExporter;
import virtio.transport.vhostuser.VhostUserMapOps;
import virtio.transport.vhostuser.VhostUserProvider;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/** The core with both transports, the backends and the driver under test. */
final class Rig {
    static final byte[] BROADCAST = {-1, -1, -1, -1, -1, -1};

    final Core core = new Core(20_000, 2_000);
    final Map<String, NetDevice> cards = new ConcurrentHashMap<>();
    private final Path folder;
    private int addresses;

    Rig(Path folder) {
        this.folder = folder;
        MmioProvider mmio = new MmioProvider(config(MmioProvider.Configuration.class));
        VhostUserProvider vhostUser =
                new VhostUserProvider(config(VhostUserProvider.Configuration.class));
        for (BackendProvider backend : List.of(new LoopbackProvider(), new SwitchProvider())) {
            core.bindBackend(backend);
        }
        core.bindTransport(mmio, new MmioMapOps());
        core.rebindTransport(vhostUser, new VhostUserMapOps());
        core.bindExporter(new VhostUserExporter());
        core.bindDriver(
                new NetDriver(
                        card -> {
                            cards.put(card.name(), card);
                            return () -> cards.remove(card.name());
                        }));
    }

    /** An annotation with its defaults. */
    private static <T> T config(Class<T> type) {
        return type.cast(
                Proxy.newProxyInstance(
                        type.getClassLoader(),
                        new Class<?>[] {type},
                        (proxy, method, args) -> method.getDefaultValue()));
    }

    String address(String transport) {
        String name = "n" + addresses++;
        return transport.equals("mmio")
                ? "mmio:" + name
                : "vhost-user:" + folder.resolve(name + ".sock");
    }

    NetDevice card(String transport, String backend, String name) throws VirtioException {
        String address = address(transport);
        core.bus().export(backend, address);
        core.bus().attach(address, name);
        return cards.get(name);
    }

    /** A frame of random bytes, or one with an address to send to. */
    static byte[] frame(int length, byte[] to, byte[] from, long seed) {
        byte[] bytes = new byte[length];
        new Random(seed).nextBytes(bytes);
        ByteBuffer.wrap(bytes).put(to).put(from).putShort((short) 0x88B5);
        return bytes;
    }

    /** Fills as many buffers as a frame takes. */
    static PacketBuffer fill(NetQueue queue, byte[] bytes) {
        int room = queue.bufferBytes();
        PacketBuffer[] buffers = new PacketBuffer[(bytes.length + room - 1) / room];
        assertEquals(buffers.length, queue.allocate(buffers));
        for (int i = 0; i < buffers.length; i++) {
            int part = Math.min(room, bytes.length - i * room);
            buffers[i].frame(PacketBuffer.HEADROOM, part);
            MemorySegment.copy(
                    bytes,
                    i * room,
                    buffers[i].segment(),
                    ValueLayout.JAVA_BYTE,
                    PacketBuffer.HEADROOM,
                    part);
            if (i > 0) {
                buffers[i - 1].chain(buffers[i]);
            }
        }
        return buffers[0];
    }

    static void send(NetQueue queue, PacketBuffer frame) {
        PacketBuffer[] one = {frame};
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (queue.send(one, 1) == 0) {
            assertTrue(System.nanoTime() < end, "room to send");
        }
    }

    /** The next frame, waited for; null when there is none in time. */
    static PacketBuffer receive(NetQueue queue, long millis) throws InterruptedException {
        PacketBuffer[] one = new PacketBuffer[1];
        return queue.receive(one, millis) == 1 ? one[0] : null;
    }

    static byte[] bytes(PacketBuffer frame) {
        byte[] bytes = new byte[frame.frameLength()];
        frame.copyTo(0, MemorySegment.ofArray(bytes), 0, bytes.length);
        return bytes;
    }

    /** The next frame is that one, but for announcements of cards (RARP), which come any time. */
    static void expect(byte[] expected, NetQueue queue) throws InterruptedException {
        byte[] came;
        do {
            PacketBuffer frame = receive(queue, 10_000);
            assertTrue(frame != null, "a frame is received");
            came = bytes(frame);
            queue.free(new PacketBuffer[] {frame}, 1);
        } while (came.length > 13 && (came[12] & 0xFF) == 0x80 && came[13] == 0x35);
        assertArrayEquals(expected, came);
    }

    void close() throws Exception {
        core.close();
        assertEquals(Map.of(), cards);
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (!threads().isEmpty() && System.nanoTime() < end) {
            Thread.sleep(1);
        }
        assertEquals(List.of(), threads());
    }

    private static List<String> threads() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> name.startsWith("virtio-"))
                .toList();
    }
}
