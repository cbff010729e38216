package virtio.device.net;

import virtio.api.VirtioException;
import virtio.api.net.FrameHandler;
import virtio.api.net.FramePort;
import virtio.api.net.NetHeader;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/** A queue pair with a thread of its own that calls a handler. */
final class HandlerPort implements FramePort {
    private static final System.Logger LOG = System.getLogger(HandlerPort.class.getPackageName());
    private static final int BURST = 32;
    private static final long LOOK_MILLIS = 1000;
    private static final int SPINS = 100;

    private final NetCard card;
    private final NetQueue queue;
    private final FrameHandler handler;
    private final Thread thread;
    private volatile boolean closed;

    HandlerPort(NetCard card, NetQueue queue, int pair, FrameHandler handler) {
        this.card = card;
        this.queue = queue;
        this.handler = handler;
        thread =
                Thread.ofPlatform()
                        .name("virtio-%s-frames-%d".formatted(card.name(), pair))
                        .daemon()
                        .start(this::run);
    }

    private void run() {
        PacketBuffer[] frames = new PacketBuffer[BURST];
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment whole = arena.allocate(NetHeader.MAX_FRAME_BYTES);
            while (!closed && queue.goneReason() == null) {
                int count = queue.receive(frames, LOOK_MILLIS);
                for (int i = 0; i < count && !closed; i++) {
                    handle(frames[i], whole);
                }
                queue.free(frames, count);
            }
        } catch (InterruptedException | IllegalStateException e) {
            // Closed meanwhile, by the consumer or with the card.
            LOG.log(Level.DEBUG, card.name(), e);
        }
    }

    private void handle(PacketBuffer frame, MemorySegment whole) {
        frame.completeChecksum();
        MemorySegment bytes;
        if (frame.next() == null) {
            bytes = frame.segment().asSlice(frame.offset(), frame.length());
        } else {
            int length = frame.frameLength();
            frame.copyTo(0, whole, 0, length);
            bytes = whole.asSlice(0, length);
        }
        try {
            handler.frame(bytes.asReadOnly());
        } catch (RuntimeException e) {
            LOG.log(Level.WARNING, card.name() + ": a frame handler failed", e);
        }
    }

    @Override
    public void send(MemorySegment frame) throws VirtioException {
        long bytes = frame.byteSize();
        if (bytes > NetHeader.MAX_FRAME_BYTES) {
            throw new IllegalArgumentException(
                    "frame of %d bytes, the limit is %d"
                            .formatted(bytes, NetHeader.MAX_FRAME_BYTES));
        }
        PacketBuffer[] one = new PacketBuffer[1];
        long start = System.nanoTime();
        boolean filled = false;
        for (int tries = 0; ; tries++) {
            if (closed) {
                throw new VirtioException(card.name() + ": the port is closed");
            }
            filled = filled || fill(one, frame);
            if (filled && sent(one)) {
                return;
            }
            String gone = queue.goneReason();
            long waited = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
            if (gone != null || waited > card.swapTimeoutMillis()) {
                if (filled) {
                    queue.free(one, 1);
                }
                throw new VirtioException(
                        "%s: %s"
                                .formatted(
                                        card.name(),
                                        gone != null
                                                ? gone
                                                : "no room to send within "
                                                        + card.swapTimeoutMillis()
                                                        + " ms"));
            }
            if (tries < SPINS) {
                Thread.onSpinWait();
            } else {
                LockSupport.parkNanos(50_000);
            }
        }
    }

    private boolean sent(PacketBuffer[] one) {
        try {
            return queue.send(one, 1) == 1;
        } catch (IllegalArgumentException e) {
            queue.free(one, 1);
            throw e;
        }
    }

    /** Copies a frame to as many buffers as it takes; false when there are not enough. */
    private boolean fill(PacketBuffer[] one, MemorySegment frame) {
        int room = queue.bufferBytes();
        int count = (int) Math.max(1, (frame.byteSize() + room - 1) / room);
        PacketBuffer[] buffers = new PacketBuffer[count];
        int got = queue.allocate(buffers);
        if (got < count) {
            queue.free(buffers, got);
            return false;
        }
        long at = 0;
        for (int i = 0; i < count; i++) {
            int part = (int) Math.min(room, frame.byteSize() - at);
            buffers[i].frame(PacketBuffer.HEADROOM, part);
            MemorySegment.copy(frame, at, buffers[i].segment(), PacketBuffer.HEADROOM, part);
            if (i > 0) {
                buffers[i - 1].chain(buffers[i]);
            }
            at += part;
        }
        one[0] = buffers[0];
        return true;
    }

    @Override
    public void close() {
        closed = true;
        thread.interrupt();
        boolean interrupted = false;
        while (thread.isAlive() && thread != Thread.currentThread()) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        try {
            queue.close();
        } catch (VirtioException e) {
            throw new AssertionError("a pair queue closes", e);
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
