package virtio.bench;

import com.sun.management.ThreadMXBean;

import virtio.api.VirtioException;
import virtio.api.net.NetDevice;
import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;

/**
 * 64-byte frames through a card, in bursts of {@value Testpmd#BURST}: the same loops as testpmd's,
 * on a thread of their own from {@link #start} to {@link #stop}.
 */
final class NetTraffic {
    /** Descriptors of each ring, at both front-ends. */
    static final int RING_SIZE = 256;

    /** Name of the thread that polls; Linux knows it by as many letters. */
    static final String THREAD = "bench-frames";

    private static final int FRAME_BYTES = 64;

    /** Ethernet, IPv4 and UDP: what testpmd writes into each frame. */
    private static final int HEADERS = 42;

    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

    private final NetQueue queue;
    private final MemorySegment headers;
    private final PacketBuffer[] burst = new PacketBuffer[Testpmd.BURST];
    private volatile boolean stopping;
    private volatile Throwable failure;
    private Thread thread;

    NetTraffic(NetDevice card) throws VirtioException {
        queue = card.openQueue(0);
        byte[] bytes = new byte[HEADERS];
        bytes[0] = 2;
        System.arraycopy(card.macAddress(), 0, bytes, 6, 6);
        bytes[12] = 8;
        bytes[14] = 0x45;
        headers = MemorySegment.ofArray(bytes);
    }

    /**
     * Starts.
     *
     * @param mode testpmd's word
     * @param first bursts to send at once
     */
    void start(String mode, int first) {
        stopping = false;
        thread = Thread.ofPlatform().name(THREAD).daemon().start(() -> run(mode, first));
    }

    void stop() throws InterruptedException, VirtioException {
        stopping = true;
        thread.join();
        if (failure != null) {
            throw new VirtioException("the frames stopped: " + failure, failure);
        }
    }

    /** Bytes that the thread has allocated so far. */
    long allocatedBytes() {
        return THREADS.getThreadAllocatedBytes(thread.threadId());
    }

    private void run(String mode, int first) {
        try {
            for (int i = 0; i < first; i++) {
                send();
            }
            // A call for each burst: the loops are then compiled as they are, not on stack.
            switch (mode) {
                case "txonly" -> {
                    while (!stopping) {
                        send();
                    }
                }
                case "rxonly" -> {
                    while (!stopping) {
                        receive();
                    }
                }
                default -> {
                    while (!stopping) {
                        forward();
                    }
                }
            }
        } catch (RuntimeException | Error e) {
            failure = e;
        }
    }

    private void send() {
        int count = queue.allocate(burst);
        for (int i = 0; i < count; i++) {
            PacketBuffer frame = burst[i];
            frame.frame(PacketBuffer.HEADROOM, FRAME_BYTES);
            MemorySegment.copy(headers, 0, frame.segment(), PacketBuffer.HEADROOM, HEADERS);
        }
        give(count);
    }

    private void receive() {
        int count = queue.receive(burst);
        if (count == 0) {
            Thread.onSpinWait();
        } else {
            queue.free(burst, count);
        }
    }

    private void forward() {
        int count = queue.receive(burst);
        if (count == 0) {
            Thread.onSpinWait();
        } else {
            give(count);
        }
    }

    /** Sends, and drops what does not fit. */
    private void give(int count) {
        int sent = queue.send(burst, count);
        if (sent < count) {
            int rest = count - sent;
            System.arraycopy(burst, sent, burst, 0, rest);
            queue.free(burst, rest);
        }
    }

    void close() throws VirtioException {
        queue.close();
    }
}
