package virtio.device.blk;

import virtio.api.Virtqueue;
import virtio.api.block.BlockQueue;
import virtio.api.block.BlockRequest;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * Everybody who sends requests through one virtqueue.
 *
 * <p>One word is the lock. It is taken once for a burst, and held for no longer than the burst
 * takes: nothing waits for a device with it held. While the device is frozen, requests stay in
 * their users' tables; {@link #resume} sends them, {@link #abandon} ends them.
 */
final class RequestQueue {
    private static final long RETRY_MILLIS = 1;
    private static final long FROZEN_NANOS = 50_000;
    private static final int SPINS = 200;
    private static final System.Logger LOG = System.getLogger(RequestQueue.class.getName());
    private static final VarHandle LOCKED;

    static {
        try {
            LOCKED =
                    MethodHandles.lookup()
                            .findVarHandle(RequestQueue.class, "locked", boolean.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    private volatile boolean locked;

    private final BlkDevice device;
    private final AsyncRequests async;

    /** The virtqueue with what is in flight; null while frozen. */
    private Slots slots;

    /** Nothing more is sent, what is in flight may still complete. */
    private boolean draining;

    private String gone;
    private BlkQueue[] users;
    private int turn;
    private int waiters;
    private boolean callbacks;
    private boolean retrying;
    private long starvedSince;

    RequestQueue(BlkDevice device) {
        this.device = device;
        async = new AsyncRequests(this);
        users = new BlkQueue[] {async.queue()};
    }

    BlkDevice device() {
        return device;
    }

    /** Why everything ends as {@link BlockQueue#GONE}; null while it does not. */
    String gone() {
        return gone;
    }

    /** With the lock held: more or fewer threads are parked until something completes. */
    void waiters(int change) {
        waiters += change;
    }

    // What users call.

    BlkQueue open(int depth) {
        BlkQueue user = new BlkQueue(this, depth);
        lock();
        try {
            users = Arrays.copyOf(users, users.length + 1);
            users[users.length - 1] = user;
        } finally {
            unlock();
        }
        return user;
    }

    void leave(BlkQueue user) {
        lock();
        try {
            users = Arrays.stream(users).filter(u -> u != user).toArray(BlkQueue[]::new);
        } finally {
            unlock();
        }
    }

    void submit(BlkQueue user) {
        lock();
        try {
            user.publish();
            send();
        } finally {
            unlock();
        }
    }

    int poll(BlkQueue user, long[] tokens, int[] results) {
        int count;
        boolean idle;
        lock();
        try {
            if (callbacks && waiters == 0 && async.idle() && slots != null) {
                slots.vq.disableCallback();
                callbacks = false;
            }
            step();
            count = user.collect(tokens, results);
            idle = count == 0 && (slots == null || draining);
        } finally {
            unlock();
        }
        if (idle) {
            // Who polls a frozen device would take the processor from those who bring it back.
            LockSupport.parkNanos(FROZEN_NANOS);
        }
        return count;
    }

    /** Collects, or leaves the caller's thread to be unparked when there is something. */
    int await(BlkQueue user, long[] tokens, int[] results, boolean wait) {
        lock();
        try {
            user.stopWaiting();
            step();
            int count = user.collect(tokens, results);
            if (count == 0 && wait) {
                user.startWaiting();
                enableCallbacks();
                count = user.collect(tokens, results);
                if (count != 0) {
                    user.stopWaiting();
                }
            }
            return count;
        } finally {
            unlock();
        }
    }

    void stopWaiting(BlkQueue user) {
        lock();
        try {
            user.stopWaiting();
        } finally {
            unlock();
        }
    }

    void add(AsyncRequests.Request request) {
        lock();
        try {
            async.add(request);
            send();
            enableCallbacks();
        } finally {
            unlock();
        }
    }

    // What the device calls.

    /** The device used buffers; on a thread of the transport. */
    void used(Virtqueue queue) {
        lock();
        try {
            if (slots != null && slots.vq == queue) {
                step();
                enableCallbacks();
            }
        } finally {
            unlock();
        }
    }

    // The life of the virtqueue.

    /** Sends no more; {@link #drained} says when the device has nothing left. */
    void drain() {
        lock();
        try {
            draining = true;
        } finally {
            unlock();
        }
    }

    /** Whether nothing is in flight, or nothing more can be expected. */
    boolean drained() {
        lock();
        try {
            harvest();
            return slots == null || slots.empty() || slots.vq.broken() != null;
        } finally {
            unlock();
        }
    }

    /** Forgets the virtqueue; what it had not answered is to be sent again. */
    void freeze() {
        lock();
        try {
            harvest();
            if (slots != null) {
                slots.recall();
                slots = null;
            }
            callbacks = false;
        } finally {
            unlock();
        }
    }

    /** Takes a virtqueue that is ready and sends what waits. */
    void resume(Slots ready) {
        lock();
        try {
            slots = ready;
            draining = false;
            gone = null;
            starvedSince = 0;
            slots.vq.disableCallback();
            send();
            enableCallbacks();
        } finally {
            unlock();
        }
    }

    /** Ends everything, and what comes from here on, as {@link BlockQueue#GONE}. */
    void abandon(String reason) {
        lock();
        try {
            gone = reason;
            send();
        } finally {
            unlock();
        }
    }

    // All below: with the lock held.

    /** Takes what is done off the ring and sends what then has room. */
    private void step() {
        harvest();
        send();
    }

    private void harvest() {
        if (slots != null) {
            slots.harvest();
        }
    }

    private void send() {
        boolean sent = false;
        // Whose turn it is goes round, so that a busy user does not keep the ring for itself.
        turn = turn + 1 < users.length ? turn + 1 : 0;
        for (int i = 0, next = turn; i < users.length; i++) {
            BlkQueue user = users[next];
            if (user.hasQueued()) {
                sent |= send(user);
            }
            next = next + 1 < users.length ? next + 1 : 0;
        }
        if (sent && slots.vq.kickPrepare()) {
            slots.vq.notifyDevice();
        }
    }

    private boolean send(BlkQueue user) {
        boolean sent = false;
        while (user.hasQueued()) {
            int request = user.head();
            int type = user.type(request);
            if (gone != null) {
                user.headSent();
                user.finish(request, BlockQueue.GONE);
            } else if (slots == null || draining) {
                return sent;
            } else if (user.result(request) != BlockQueue.OK) {
                // A part failed already: the others need not be sent.
                user.headSent();
                if (!user.hasParts(request)) {
                    user.finish(request, user.result(request));
                }
            } else if (!slots.known(type)) {
                user.headSent();
                // Without a cache to flush, what is written is stable (5.2.5.1).
                user.finish(
                        request,
                        type == BlockRequest.FLUSH ? BlockQueue.OK : BlockQueue.UNSUPPORTED);
            } else if (sendPart(user, request, type)) {
                sent = true;
                if (user.unsent(request) == 0) {
                    user.headSent();
                }
            } else if (user.result(request) == BlockQueue.OK) {
                return sent;
            }
        }
        return sent;
    }

    /** Sends as much of a request as one chain takes; false when there is no room now. */
    private boolean sendPart(BlkQueue user, int request, int type) {
        if (slots.full()) {
            return false;
        }
        int blockSize = slots.limits.blockSize();
        long offset = user.offset(request) + user.sent(request);
        long length = Math.min(user.unsent(request), slots.most(type, offset));
        while (!added(user, request, type, offset, length)) {
            if (user.result(request) != BlockQueue.OK) {
                return false;
            }
            if (slots.vq.broken() != null) {
                device.broken(slots.vq);
                return false;
            }
            if (!slots.empty()) {
                return false;
            }
            // The ring is empty, so it is the mapping that has no room for as much as that.
            if (length <= blockSize) {
                starved(user, request);
                return false;
            }
            length = Math.max(length / 2 / blockSize, 1) * blockSize;
        }
        starvedSince = 0;
        return true;
    }

    /** Adds a part; false when there is no room, or when its memory ends the request. */
    private boolean added(BlkQueue user, int request, int type, long offset, long length) {
        try {
            return slots.add(user, request, type, offset, length);
        } catch (RuntimeException e) {
            // The mapping's, of a segment that was closed meanwhile: nobody else's affair.
            LOG.log(
                    System.Logger.Level.WARNING,
                    "{0}: {1} bytes at {2} cannot be mapped: {3}",
                    device.name(),
                    length,
                    offset,
                    e.toString());
            user.fail(request, BlockQueue.IO_ERROR);
            return false;
        }
    }

    /** Others may give room back without a word: looks again soon, and not for ever. */
    private void starved(BlkQueue user, int request) {
        long now = System.nanoTime();
        if (starvedSince == 0) {
            starvedSince = now;
        } else if (now - starvedSince > TimeUnit.MILLISECONDS.toNanos(device.swapTimeoutMillis())) {
            starvedSince = 0;
            user.headSent();
            user.finish(request, BlockQueue.IO_ERROR);
            return;
        }
        if (!retrying) {
            retrying = true;
            CompletableFuture.delayedExecutor(RETRY_MILLIS, TimeUnit.MILLISECONDS)
                    .execute(this::retry);
        }
    }

    private void retry() {
        lock();
        try {
            retrying = false;
            step();
            enableCallbacks();
        } finally {
            unlock();
        }
    }

    /** Sees to it that somebody is called for what is in flight, if anybody waits for that. */
    private void enableCallbacks() {
        while (slots != null && (waiters > 0 || !async.idle())) {
            callbacks = true;
            if (slots.vq.enableCallback()) {
                return;
            }
            if (slots.vq.broken() != null) {
                device.broken(slots.vq);
                return;
            }
            step();
        }
    }

    private void lock() {
        if (!LOCKED.compareAndSet(this, false, true)) {
            lockContended();
        }
    }

    private void lockContended() {
        for (int tries = 0; !LOCKED.compareAndSet(this, false, true); tries++) {
            if (tries < SPINS) {
                Thread.onSpinWait();
            } else {
                // The holder has lost its processor.
                LockSupport.parkNanos(20_000);
            }
        }
    }

    /** Lets go of the lock, then tells those who wait for futures. */
    private void unlock() {
        List<AsyncRequests.Done> done = null;
        try {
            done = async.take(null);
            if (done != null) {
                send();
                for (int before = 0; before != done.size(); ) {
                    before = done.size();
                    done = async.take(done);
                    send();
                }
            }
        } finally {
            LOCKED.setRelease(this, false);
            if (done != null) {
                done.forEach(AsyncRequests.Done::complete);
            }
        }
    }
}
