package virtio.guest.stack;

import org.osgi.framework.BundleActivator;
import org.osgi.framework.BundleContext;
import org.osgi.framework.ServiceReference;

import virtio.api.net.FramePort;
import virtio.api.net.NetDevice;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Dictionary;
import java.util.Hashtable;
import java.util.HexFormat;
import java.util.Random;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;

/**
 * A host of its own on a card, with as much of ARP, ICMP, DHCP and TCP as a conversation with the
 * gateway needs. A bundle for a container in a guest, where it is the command {@code talk NAME
 * PORT}.
 */
public final class SmallStack implements BundleActivator {
    /** What goes each way by TCP. */
    public static final int BYTES = 1 << 20;

    private static final byte[] BROADCAST = {-1, -1, -1, -1, -1, -1};
    private static final int ANYBODY = -1;
    private static final int WAIT_MILLIS = 2_000;
    private static final int TRIES = 10;

    private final LinkedBlockingQueue<Frame> received = new LinkedBlockingQueue<>();
    private BundleContext context;
    private FramePort port;
    private byte[] ownMac;
    private byte[] gatewayMac;
    private int own;
    private int gateway;
    private int identification;

    @Override
    public void start(BundleContext bundle) {
        context = bundle;
        Dictionary<String, Object> command = new Hashtable<>();
        command.put("osgi.command.scope", "test");
        command.put("osgi.command.function", "talk");
        bundle.registerService(SmallStack.class, this, command);
    }

    @Override
    public void stop(BundleContext bundle) {
        // The service goes with the bundle.
    }

    /** The command: gets an address, asks for the gateway, sends and receives by TCP. */
    public void talk(String name, int tcpPort) throws Exception {
        var found =
                context.getServiceReferences(NetDevice.class, "(virtio.name=" + name + ")")
                        .iterator();
        if (!found.hasNext()) {
            throw new IllegalStateException("no card " + name);
        }
        ServiceReference<NetDevice> reference = found.next();
        NetDevice card = context.getService(reference);
        ownMac = card.macAddress();
        gatewayMac = BROADCAST;
        own = 0;
        received.clear();
        port = card.openPort(0, this::take);
        try {
            configure(name);
            resolve(name);
            for (int bytes : new int[] {0, 1, 56, 1400}) {
                echo(bytes);
            }
            System.out.println(name + ": echoes of 0, 1, 56 and 1400 bytes came back");
            System.out.println(name + ": " + new Connection(tcpPort).transfer());
        } catch (IllegalStateException e) {
            throw new IllegalStateException(e.getMessage() + "; " + card.statistics(), e);
        } finally {
            port.close();
            context.ungetService(reference);
        }
    }

    /** A frame with its parts; {@code payload} is behind the header of the innermost protocol. */
    private record Frame(int type, int protocol, int from, ByteBuffer packet, ByteBuffer payload) {}

    /** On a thread of the card. */
    private void take(MemorySegment segment) {
        ByteBuffer packet = ByteBuffer.wrap(segment.toArray(ValueLayout.JAVA_BYTE));
        if (packet.capacity() < 34) {
            return;
        }
        int type = packet.getShort(12) & 0xffff;
        if (type == 0x0806) {
            received.add(new Frame(type, 0, packet.getInt(28), packet, null));
        } else if (type == 0x0800 && packet.get(14) == 0x45) {
            int length = packet.getShort(16) & 0xffff;
            check("IPv4 header", sum(packet, 14, 20, 0));
            ByteBuffer payload = packet.slice(34, length - 20);
            int protocol = packet.get(23);
            if (protocol == 1) {
                check("ICMP", sum(payload, 0, length - 20, 0));
            } else {
                check("protocol " + protocol, sum(payload, 0, length - 20, pseudo(packet)));
            }
            received.add(new Frame(type, protocol, packet.getInt(26), packet, payload));
        }
    }

    private static void check(String what, int sum) {
        if (sum != 0xffff) {
            throw new IllegalStateException("checksum of %s: 0x%04x".formatted(what, sum));
        }
    }

    /** Waits for what is wanted, sending the question again; the rest is dropped. */
    private Frame ask(String what, Runnable question, Predicate<Frame> wanted)
            throws InterruptedException {
        for (int i = 0; i < TRIES; i++) {
            question.run();
            long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(WAIT_MILLIS);
            long left;
            while ((left = end - System.nanoTime()) > 0) {
                Frame frame = received.poll(left, TimeUnit.NANOSECONDS);
                if (frame != null && wanted.test(frame)) {
                    return frame;
                }
            }
        }
        throw new IllegalStateException("no answer to " + what);
    }

    private void send(ByteBuffer frame) {
        try {
            port.send(MemorySegment.ofArray(frame.array()).asSlice(0, frame.position()));
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private ByteBuffer ethernet(byte[] to, int type) {
        return ByteBuffer.allocate(1514).put(to).put(ownMac).putShort((short) type);
    }

    /** A packet whose payload is to be put behind, before {@link #sendIp}. */
    private ByteBuffer ip(byte[] mac, int protocol, int to) {
        return ethernet(mac, 0x0800)
                .putInt(0x45000000)
                .putShort((short) identification++)
                .putShort((short) 0x4000)
                .put((byte) 64)
                .put((byte) protocol)
                .putShort((short) 0)
                .putInt(own)
                .putInt(to);
    }

    /** Fills in lengths and checksums; the inner one at that offset of the payload. */
    private void sendIp(ByteBuffer packet, int checksumAt) {
        int length = packet.position() - 14;
        packet.putShort(16, (short) length);
        packet.putShort(24, (short) ~sum(packet, 14, 20, 0));
        int pseudo = packet.get(23) == 1 ? 0 : pseudo(packet);
        packet.putShort(34 + checksumAt, (short) ~sum(packet, 34, length - 20, pseudo));
        send(packet);
    }

    private static int pseudo(ByteBuffer packet) {
        int length = (packet.getShort(16) & 0xffff) - 20;
        return sum(packet, 26, 8, packet.get(23) + length);
    }

    private static int sum(ByteBuffer buffer, int at, int length, int begin) {
        int sum = begin;
        for (int i = 0; i < length; i++) {
            int value = buffer.get(at + i) & 0xff;
            sum += (i & 1) == 0 ? value << 8 : value;
            sum = (sum & 0xffff) + (sum >>> 16);
        }
        return sum;
    }

    private void configure(String name) throws InterruptedException {
        Frame offer = ask("DHCP discover", () -> dhcp(1, 0, 0), dhcpAnswer(2));
        int address = offer.payload.getInt(8 + 16);
        int server = option(offer, 54).getInt();
        Frame taken = ask("DHCP request", () -> dhcp(3, address, server), dhcpAnswer(5));
        own = taken.payload.getInt(8 + 16);
        gateway = option(taken, 3).getInt();
        System.out.printf("%s: DHCP gives %s by %s%n", name, text(own), text(gateway));
    }

    private Predicate<Frame> dhcpAnswer(int kind) {
        return frame ->
                frame.protocol == 17
                        && frame.payload.getShort(2) == 68
                        && frame.payload.getInt(8 + 4) == Arrays.hashCode(ownMac)
                        && option(frame, 53).get() == kind;
    }

    private static ByteBuffer option(Frame answer, int wanted) {
        ByteBuffer options = answer.payload.duplicate().position(8 + 240);
        int kind;
        while ((kind = options.get() & 0xff) != 255) {
            int length = kind == 0 ? 0 : options.get() & 0xff;
            if (kind == wanted) {
                return options.slice(options.position(), length);
            }
            options.position(options.position() + length);
        }
        throw new IllegalStateException("no DHCP option " + wanted);
    }

    private void dhcp(int kind, int address, int server) {
        ByteBuffer packet = ip(BROADCAST, 17, ANYBODY);
        packet.putShort((short) 68).putShort((short) 67).putInt(0);
        int begin = packet.position();
        packet.putInt(0x01010600).putInt(Arrays.hashCode(ownMac));
        packet.position(begin + 28).put(ownMac);
        packet.position(begin + 236).putInt(0x63825363);
        packet.put(new byte[] {53, 1, (byte) kind});
        if (address != 0) {
            packet.put(new byte[] {50, 4}).putInt(address);
            packet.put(new byte[] {54, 4}).putInt(server);
        }
        packet.put((byte) 255);
        packet.putShort(38, (short) (packet.position() - 34));
        sendIp(packet, 6);
    }

    private void resolve(String name) throws InterruptedException {
        Frame answer =
                ask(
                        "ARP",
                        () ->
                                send(
                                        ethernet(BROADCAST, 0x0806)
                                                .putLong(0x0001_0800_0604_0001L)
                                                .put(ownMac)
                                                .putInt(own)
                                                .put(new byte[6])
                                                .putInt(gateway)
                                                .put(new byte[18])),
                        frame ->
                                frame.type == 0x0806
                                        && frame.packet.getShort(20) == 2
                                        && frame.from == gateway);
        gatewayMac = new byte[6];
        answer.packet.get(22, gatewayMac);
        System.out.printf(
                "%s: ARP says %s is at %s%n",
                name, text(gateway), HexFormat.ofDelimiter(":").formatHex(gatewayMac));
    }

    private void echo(int bytes) throws InterruptedException {
        byte[] data = new byte[bytes];
        new Random(bytes).nextBytes(data);
        ask(
                "ICMP echo of " + bytes + " bytes",
                () -> {
                    ByteBuffer packet = ip(gatewayMac, 1, gateway);
                    sendIp(packet.putInt(0x08000000).putInt(bytes).put(data), 2);
                },
                frame ->
                        frame.protocol == 1
                                && frame.payload.get(0) == 0
                                && frame.payload.getInt(4) == bytes
                                && frame.payload.slice(8, bytes).equals(ByteBuffer.wrap(data)));
    }

    private static String text(int address) {
        return "%d.%d.%d.%d"
                .formatted(address >>> 24, address >> 16 & 255, address >> 8 & 255, address & 255);
    }

    /** One connection: sends, then receives, goes back to what was not acknowledged in time. */
    private final class Connection {
        private static final int FIN = 1;
        private static final int SYN = 2;
        private static final int ACK = 16;
        private static final int MOST = 1460;
        private static final int OPENING = 1_000_000;

        private final int port;
        private final int localPort = 40_000 + identification++ % 10_000;
        private int next = OPENING;
        private int expected;

        Connection(int port) {
            this.port = port;
        }

        private void segment(int flags, int sequence, byte[] data, int from, int length) {
            ByteBuffer packet = ip(gatewayMac, 6, gateway);
            packet.putShort((short) localPort).putShort((short) port);
            packet.putInt(sequence).putInt((flags & ACK) == 0 ? 0 : expected);
            boolean opening = (flags & SYN) != 0;
            packet.put((byte) (opening ? 0x60 : 0x50)).put((byte) flags);
            packet.putShort((short) 0xffff).putInt(0);
            if (opening) {
                packet.putInt(0x02040000 | MOST);
            }
            sendIp(packet.put(data, from, length), 16);
        }

        private boolean ours(Frame frame) {
            boolean ours =
                    frame.protocol == 6
                            && (frame.payload.getShort(0) & 0xffff) == port
                            && (frame.payload.getShort(2) & 0xffff) == localPort;
            if (ours && (frame.payload.get(13) & 4) != 0) {
                throw new IllegalStateException("the connection was reset");
            }
            return ours;
        }

        String transfer() throws Exception {
            byte[] nothing = {};
            Frame accepted = ask("TCP SYN", () -> segment(SYN, OPENING, nothing, 0, 0), this::ours);
            expected = accepted.payload.getInt(4) + 1;
            next++;
            byte[] data = new byte[BYTES];
            new Random(BYTES).nextBytes(data);
            int window = upload(data, accepted.payload.getShort(14) & 0xffff);
            String came = download();
            segment(ACK | FIN, next, nothing, 0, 0);
            return "TCP sent %s, received %s, last window %d"
                    .formatted(hex(MessageDigest.getInstance("SHA-256"), data), came, window);
        }

        private int upload(byte[] data, int firstWindow) throws InterruptedException {
            int base = next;
            int window = firstWindow;
            int acknowledged = 0;
            int sent = 0;
            while (acknowledged < data.length) {
                while (sent < data.length && sent - acknowledged < window) {
                    int length = Math.min(MOST, data.length - sent);
                    length = Math.min(length, window - (sent - acknowledged));
                    segment(ACK, base + sent, data, sent, length);
                    sent += length;
                }
                Frame frame = received.poll(WAIT_MILLIS, TimeUnit.MILLISECONDS);
                if (frame == null) {
                    sent = acknowledged;
                } else if (ours(frame)) {
                    acknowledged = Math.max(acknowledged, frame.payload.getInt(8) - base);
                    window = frame.payload.getShort(14) & 0xffff;
                }
            }
            next = base + data.length;
            return window;
        }

        private String download() throws Exception {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            int silent = 0;
            while (silent < TRIES) {
                segment(ACK, next, new byte[0], 0, 0);
                Frame frame = received.poll(WAIT_MILLIS, TimeUnit.MILLISECONDS);
                silent = frame == null ? silent + 1 : 0;
                boolean ended = false;
                for (; frame != null; frame = received.poll()) {
                    ended |= ours(frame) && append(frame.payload, digest);
                }
                if (ended) {
                    expected++;
                    return HexFormat.of().formatHex(digest.digest());
                }
            }
            throw new IllegalStateException("no more data from the gateway");
        }

        /** Takes data that is in order; whether it is the last. */
        private boolean append(ByteBuffer payload, MessageDigest digest) {
            if (payload.getInt(4) != expected) {
                return false;
            }
            int header = (payload.get(12) & 0xf0) >> 2;
            int length = payload.capacity() - header;
            digest.update(payload.slice(header, length));
            expected += length;
            return (payload.get(13) & FIN) != 0;
        }

        private static String hex(MessageDigest digest, byte[] data) {
            return HexFormat.of().formatHex(digest.digest(data));
        }
    }
}
