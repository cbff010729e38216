package virtio.device.blk;

import virtio.api.VirtioException;
import virtio.api.block.BlockQueue;
import virtio.api.block.BlockRequest;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * One user's requests to a {@link RequestQueue}: a table, the order in which they are to be sent,
 * and a ring of those that are done.
 *
 * <p>A request is prepared by the user's thread alone. From {@link #submit} until it is collected
 * it belongs to whoever holds the lock of the request queue.
 */
final class BlkQueue implements BlockQueue {
    static final int MAX_DEPTH = 1 << 16;

    private final RequestQueue ring;
    private final int[] free;
    private int freeCount;
    private boolean closed;

    // The table; a request keeps its index until it is collected.
    private final int[] types;
    private final int[] flags;
    private final long[] offsets;
    private final long[] lengths;
    private final MemorySegment[] segments;
    private final long[] tokens;

    /** Bytes already sent, in parts. */
    private final long[] sent;

    /** Parts that the device has. */
    private final int[] parts;

    private final int[] results;

    private final int mask;

    /** Requests in the order of sending; each is in it once, until all of it is sent. */
    private final int[] queued;

    private final boolean[] isQueued;
    private int queuedHead;
    private int queuedTail;
    private int preparedTail;

    private final int[] done;
    private int doneHead;
    private int doneTail;
    private Thread waiter;
    private final HaltPolling halt = new HaltPolling();
    private String goneReason;

    BlkQueue(RequestQueue ring, int depth) {
        this.ring = ring;
        free = new int[depth];
        for (int i = 0; i < depth; i++) {
            free[i] = depth - 1 - i;
        }
        freeCount = depth;
        types = new int[depth];
        flags = new int[depth];
        offsets = new long[depth];
        lengths = new long[depth];
        segments = new MemorySegment[depth];
        tokens = new long[depth];
        sent = new long[depth];
        parts = new int[depth];
        results = new int[depth];
        isQueued = new boolean[depth];
        int capacity = Math.max(2, Integer.highestOneBit(depth - 1) * 2);
        mask = capacity - 1;
        queued = new int[capacity];
        done = new int[capacity];
    }

    @Override
    public boolean read(long offset, MemorySegment into, long token) {
        ring.device().checkRead(offset, into);
        return prepare(BlockRequest.IN, 0, offset, into.byteSize(), into, token) >= 0;
    }

    @Override
    public boolean write(long offset, MemorySegment from, long token) {
        ring.device().checkWrite(offset, from);
        return prepare(BlockRequest.OUT, 0, offset, from.byteSize(), from, token) >= 0;
    }

    @Override
    public boolean flush(long token) {
        return prepare(BlockRequest.FLUSH, 0, 0, 0, null, token) >= 0;
    }

    @Override
    public boolean discard(long offset, long length, long token) {
        ring.device().checkWrite(offset, length);
        return prepare(BlockRequest.DISCARD, 0, offset, length, null, token) >= 0;
    }

    @Override
    public boolean writeZeroes(long offset, long length, boolean unmap, long token) {
        ring.device().checkWrite(offset, length);
        int flags = unmap ? BlockRequest.UNMAP : 0;
        return prepare(BlockRequest.WRITE_ZEROES, flags, offset, length, null, token) >= 0;
    }

    /** The index of the new request, or -1 when all are in use. */
    int prepare(int type, int flag, long offset, long length, MemorySegment data, long token) {
        if (closed) {
            throw new IllegalStateException("queue is closed");
        }
        if (freeCount == 0) {
            return -1;
        }
        int request = free[--freeCount];
        types[request] = type;
        flags[request] = flag;
        offsets[request] = offset;
        lengths[request] = length;
        segments[request] = data;
        tokens[request] = token;
        sent[request] = 0;
        parts[request] = 0;
        results[request] = OK;
        isQueued[request] = true;
        queued[preparedTail++ & mask] = request;
        return request;
    }

    @Override
    public void submit() {
        ring.submit(this);
    }

    @Override
    public int poll(long[] tokens, int[] results) {
        return ring.poll(this, tokens, results);
    }

    @Override
    public int await(long[] tokens, int[] results, long timeoutMillis) throws InterruptedException {
        long total = TimeUnit.MILLISECONDS.toNanos(timeoutMillis);
        long start = System.nanoTime();
        long look = Math.min(total, halt.nanos());
        int count = look > 0 ? look(tokens, results, start, look) : 0;
        boolean slept = false;
        while (count == 0) {
            long remaining = total - (System.nanoTime() - start);
            boolean wait = remaining > 0 && inFlight() > 0;
            count = ring.await(this, tokens, results, wait);
            if (count != 0 || !wait) {
                break;
            }
            LockSupport.parkNanos(this, remaining);
            if (Thread.interrupted()) {
                ring.stopWaiting(this);
                throw new InterruptedException();
            }
            slept = true;
        }
        if (slept) {
            halt.slept(System.nanoTime() - start);
        }
        return count;
    }

    /** Polls for so long. */
    private int look(long[] tokens, int[] results, long start, long nanos) {
        int count = 0;
        while (count == 0 && inFlight() > 0 && System.nanoTime() - start < nanos) {
            count = poll(tokens, results);
            if (count == 0) {
                Thread.onSpinWait();
            }
        }
        if (count > 0) {
            halt.found();
        }
        return count;
    }

    @Override
    public int inFlight() {
        return free.length - freeCount;
    }

    @Override
    public String goneReason() {
        return goneReason;
    }

    @Override
    public void close() throws VirtioException {
        if (closed) {
            return;
        }
        closed = true;
        submit();
        long limitMillis = ring.device().swapTimeoutMillis();
        long start = System.nanoTime();
        long[] tokens = new long[64];
        int[] results = new int[64];
        boolean interrupted = false;
        long leftMillis = limitMillis;
        while (inFlight() > 0 && leftMillis > 0) {
            try {
                await(tokens, results, leftMillis);
            } catch (InterruptedException e) {
                // The buffers are the device's until it is done with them.
                interrupted = true;
            }
            leftMillis = limitMillis - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
        if (inFlight() > 0) {
            throw new VirtioException(
                    "%s: %d requests were not answered within %d ms"
                            .formatted(ring.device().name(), inFlight(), limitMillis));
        }
        ring.leave(this);
    }

    // From here on: only with the lock of the request queue.

    /** Lets go to the device what was prepared. */
    void publish() {
        queuedTail = preparedTail;
    }

    boolean hasQueued() {
        return queuedHead != queuedTail;
    }

    /** The request that is next to send, or has more parts to send. */
    int head() {
        return queued[queuedHead & mask];
    }

    /** All parts of the head are sent. */
    void headSent() {
        isQueued[head()] = false;
        queuedHead++;
    }

    int type(int request) {
        return types[request];
    }

    int flags(int request) {
        return flags[request];
    }

    long offset(int request) {
        return offsets[request];
    }

    MemorySegment segment(int request) {
        return segments[request];
    }

    long sent(int request) {
        return sent[request];
    }

    long unsent(int request) {
        return lengths[request] - sent[request];
    }

    int result(int request) {
        return results[request];
    }

    boolean hasParts(int request) {
        return parts[request] > 0;
    }

    void partSent(int request, long bytes) {
        parts[request]++;
        sent[request] += bytes;
    }

    /** The first error is the request's. */
    void fail(int request, int result) {
        if (results[request] == OK) {
            results[request] = result;
        }
    }

    /** The device is done with a part. */
    void partDone(int request, int result) {
        if (result != OK) {
            fail(request, result);
        } else if (types[request] == BlockRequest.IN && !segments[request].scope().isAlive()) {
            // It was closed meanwhile, so nothing was copied to it.
            fail(request, IO_ERROR);
        }
        if (--parts[request] == 0 && !isQueued[request]) {
            finish(request, results[request]);
        }
    }

    void finish(int request, int result) {
        results[request] = result;
        done[doneTail++ & mask] = request;
        if (result == GONE) {
            goneReason = ring.gone();
        }
        if (waiter != null) {
            LockSupport.unpark(waiter);
            stopWaiting();
        }
    }

    /** The device has lost a part of the request: all of it is sent once more. */
    void recall(int request) {
        if (parts[request] > 0) {
            parts[request] = 0;
            sent[request] = 0;
            if (!isQueued[request]) {
                isQueued[request] = true;
                queued[--queuedHead & mask] = request;
            }
        }
    }

    /** A request that is done and stays so until {@link #release}, or -1. */
    int nextDone() {
        return doneHead == doneTail ? -1 : done[doneHead++ & mask];
    }

    void release(int request) {
        segments[request] = null;
        free[freeCount++] = request;
    }

    int collect(long[] tokens, int[] results) {
        int most = Math.min(tokens.length, results.length);
        int count = 0;
        while (count < most && doneHead != doneTail) {
            int request = done[doneHead++ & mask];
            tokens[count] = this.tokens[request];
            results[count++] = this.results[request];
            release(request);
        }
        return count;
    }

    void startWaiting() {
        waiter = Thread.currentThread();
        ring.waiters(1);
    }

    void stopWaiting() {
        if (waiter != null) {
            waiter = null;
            ring.waiters(-1);
        }
    }
}
