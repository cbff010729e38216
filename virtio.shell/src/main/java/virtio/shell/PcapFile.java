package virtio.shell;

import virtio.api.net.FrameTap;
import virtio.api.net.PacketBuffer;

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A capture file (pcapng, draft-ietf-opsawg-pcapng): a section, one Ethernet interface, a packet
 * block for every frame. Frames are copied where they pass, and written by another thread; those
 * that come faster than it writes are left out and counted.
 */
final class PcapFile implements FrameTap, AutoCloseable {
    /** Frames on the way to the file. */
    private static final int QUEUE = 4096;

    private static final int SECTION = 0x0A0D0D0A;
    private static final int BYTE_ORDER = 0x1A2B3C4D;
    private static final int INTERFACE = 1;
    private static final int PACKET = 6;
    private static final int ETHERNET = 1;
    private static final int OPTION_NAME = 2;
    private static final int OPTION_TIME_RESOLUTION = 9;
    private static final int OPTION_FLAGS = 2;
    private static final int NANOSECONDS = 9;
    private static final int INBOUND = 1;
    private static final int OUTBOUND = 2;
    private static final int BLOCK_BYTES = 12;

    private record Captured(long nanos, boolean received, int length, byte[] bytes) {}

    private final BlockingQueue<Captured> queue = new ArrayBlockingQueue<>(QUEUE);
    private final AtomicLong missed = new AtomicLong();
    private final int mostBytes;
    private final long mostFrames;
    private final OutputStream out;
    private final Thread writer;
    private volatile boolean closed;
    private volatile IOException failure;
    private volatile long written;

    /**
     * Begins a file, in place of one that is there.
     *
     * @param name of the card
     * @param mostBytes what is kept of a frame
     * @param mostFrames after how many the file is full
     */
    PcapFile(Path path, String name, int mostBytes, long mostFrames) throws IOException {
        this.mostBytes = mostBytes;
        this.mostFrames = mostFrames;
        out = new BufferedOutputStream(Files.newOutputStream(path), 1 << 16);
        byte[] text = name.getBytes(java.nio.charset.StandardCharsets.UTF_8);
        ByteBuffer section = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN);
        section.putInt(BYTE_ORDER).putShort((short) 1).putShort((short) 0).putLong(-1);
        block(SECTION, section.flip());
        ByteBuffer card =
                ByteBuffer.allocate(24 + padded(text.length)).order(ByteOrder.LITTLE_ENDIAN);
        card.putShort((short) ETHERNET).putShort((short) 0).putInt(mostBytes);
        card.putShort((short) OPTION_NAME).putShort((short) text.length).put(text);
        card.position(12 + padded(text.length));
        card.putShort((short) OPTION_TIME_RESOLUTION).putShort((short) 1).putInt(NANOSECONDS);
        card.putInt(0);
        block(INTERFACE, card.flip());
        writer = Thread.ofPlatform().name("virtio-pcap-" + name).daemon().start(this::run);
    }

    private static int padded(int bytes) {
        return bytes + 3 & -4;
    }

    @Override
    public void frame(int pair, boolean received, PacketBuffer frame) {
        int length = frame.frameLength();
        byte[] bytes = new byte[Math.min(length, mostBytes)];
        frame.copyTo(0, MemorySegment.ofArray(bytes), 0, bytes.length);
        Instant now = Instant.now();
        long nanos = TimeUnit.SECONDS.toNanos(now.getEpochSecond()) + now.getNano();
        if (!queue.offer(new Captured(nanos, received, length, bytes))) {
            missed.incrementAndGet();
        }
    }

    private void run() {
        try {
            while (written < mostFrames) {
                Captured next = queue.poll(100, TimeUnit.MILLISECONDS);
                if (next != null) {
                    write(next);
                    written++;
                } else if (closed) {
                    break;
                }
            }
            out.flush();
        } catch (IOException e) {
            failure = e;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void write(Captured frame) throws IOException {
        int data = padded(frame.bytes.length);
        ByteBuffer packet = ByteBuffer.allocate(32 + data).order(ByteOrder.LITTLE_ENDIAN);
        packet.putInt(0).putInt((int) (frame.nanos >>> 32)).putInt((int) frame.nanos);
        packet.putInt(frame.bytes.length).putInt(frame.length).put(frame.bytes);
        packet.position(20 + data);
        packet.putShort((short) OPTION_FLAGS).putShort((short) Integer.BYTES);
        packet.putInt(frame.received ? INBOUND : OUTBOUND).putInt(0);
        block(PACKET, packet.flip());
    }

    private void block(int type, ByteBuffer body) throws IOException {
        int length = BLOCK_BYTES + body.remaining();
        ByteBuffer block = ByteBuffer.allocate(length).order(ByteOrder.LITTLE_ENDIAN);
        block.putInt(type).putInt(length).put(body).putInt(length);
        out.write(block.array());
    }

    /** Waits until the file is full; false when the time was up. */
    boolean await(long millis) throws InterruptedException {
        writer.join(Math.max(1, millis));
        return !writer.isAlive();
    }

    long written() {
        return written;
    }

    /** Frames that were left out. */
    long missed() {
        return missed.get();
    }

    /** Writes what is on the way, then ends the file; the tap is taken off before. */
    @Override
    public void close() throws IOException {
        closed = true;
        boolean interrupted = false;
        while (writer.isAlive()) {
            try {
                writer.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
        out.close();
        if (failure != null) {
            throw failure;
        }
    }
}
