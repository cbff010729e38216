package virtio.device.net;

import virtio.api.net.NetQueue;
import virtio.api.net.PacketBuffer;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/** What the owner of a {@link QueuePair} holds. */
final class PairQueue implements NetQueue {
    private final QueuePair pair;
    private volatile boolean closed;

    PairQueue(QueuePair pair) {
        this.pair = pair;
    }

    @Override
    public int allocate(PacketBuffer[] into) {
        checkOpen();
        return pair.allocate(into);
    }

    @Override
    public void free(PacketBuffer[] buffers, int count) {
        checkOpen();
        pair.free(buffers, count);
    }

    @Override
    public int receive(PacketBuffer[] into) {
        checkOpen();
        return pair.receive(into);
    }

    @Override
    public int receive(PacketBuffer[] into, long timeoutMillis) throws InterruptedException {
        checkOpen();
        long total = TimeUnit.MILLISECONDS.toNanos(timeoutMillis);
        long start = System.nanoTime();
        long remaining = total;
        while (true) {
            int count = pair.receiveOrWait(into);
            if (count != 0 || remaining <= 0 || pair.gone() != null || closed) {
                pair.stopWaiting();
                return count;
            }
            LockSupport.parkNanos(this, remaining);
            if (Thread.interrupted()) {
                pair.stopWaiting();
                throw new InterruptedException();
            }
            remaining = total - (System.nanoTime() - start);
        }
    }

    @Override
    public int send(PacketBuffer[] frames, int count) {
        checkOpen();
        return pair.send(frames, count);
    }

    @Override
    public int bufferBytes() {
        return PacketPool.DATA_BYTES;
    }

    @Override
    public String goneReason() {
        return pair.gone();
    }

    @Override
    public void close() {
        if (!closed) {
            closed = true;
            pair.received();
            pair.close(this);
        }
    }

    private void checkOpen() {
        if (closed) {
            throw new IllegalStateException("queue is closed");
        }
    }
}
