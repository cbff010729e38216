package virtio.device.net;

import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.net.DropReason;
import virtio.api.net.FrameTap;
import virtio.api.net.NetStatistics;
import virtio.api.net.PacketBuffer;

import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.locks.LockSupport;

/**
 * A receive and a transmit queue with their buffers.
 *
 * <p>One word is the lock. It is taken once for a burst, and held for no longer than the burst
 * takes; it lets a swap take the queues away from a consumer that polls, and a frame be sent while
 * another thread waits for one.
 */
final class QueuePair {
    /** Buffers that consumers can hold without the rings going short. */
    private static final int SPARE = 512;

    private static final int SPINS = 200;
    private static final long FROZEN_NANOS = 50_000;
    private static final VarHandle LOCKED;

    static {
        try {
            LOCKED = MethodHandles.lookup().findVarHandle(QueuePair.class, "locked", boolean.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    private volatile boolean locked;

    /** Parked until something is received, or the card's life goes on. */
    private volatile Thread waiter;

    private final NetCard card;
    private final int index;

    // What follows is used with the lock held.

    private final NetCounts counts = new NetCounts();
    private PairQueue owner;
    private String gone;

    /** Null while frozen, as {@link #tx}. */
    private ReceiveRing rx;

    private TransmitRing tx;

    /** The buffers of the device of today, or of the last one while frozen. */
    private PacketPool pool;

    /** Those of earlier devices, of which consumers hold some. */
    private final List<PacketPool> retired = new ArrayList<>();

    /** Received before a freeze. */
    private final ArrayDeque<Packet> pending = new ArrayDeque<>();

    private boolean callbacks;

    /** Nothing more is sent, what the device has may still be done. */
    private boolean draining;

    QueuePair(NetCard card, int index) {
        this.card = card;
        this.index = index;
    }

    NetCard card() {
        return card;
    }

    // What the owner calls.

    PairQueue open() throws VirtioException {
        lock();
        try {
            if (gone != null) {
                throw new VirtioException("%s: %s".formatted(card.name(), gone));
            }
            if (owner != null) {
                throw new VirtioException(
                        "%s: queue pair %d has an owner already".formatted(card.name(), index));
            }
            discard();
            owner = new PairQueue(this);
            return owner;
        } finally {
            unlock();
        }
    }

    /** What came before there was anybody to take it. */
    private void discard() {
        while (!pending.isEmpty()) {
            unclaimed(pending.poll());
        }
        if (rx != null) {
            for (Packet p = rx.nextFrame(); p != null; p = rx.nextFrame()) {
                unclaimed(p);
            }
            rx.refill(1);
        }
    }

    private void unclaimed(Packet packet) {
        counts.drop(DropReason.UNCLAIMED, 1);
        PacketPool.putAll(packet);
    }

    void close(PairQueue user) {
        lock();
        try {
            if (owner == user) {
                owner = null;
                if (pool != null) {
                    pool.reclaim(Packet.HELD);
                }
                retired.forEach(old -> old.reclaim(Packet.HELD));
                retired.removeIf(PacketPool::closed);
            }
        } finally {
            unlock();
        }
    }

    int allocate(PacketBuffer[] into) {
        lock();
        try {
            if (rx == null) {
                return 0;
            }
            if (pool.free() < into.length) {
                tx.reclaim();
            }
            int count = Math.min(into.length, pool.free());
            for (int i = 0; i < count; i++) {
                Packet packet = pool.take();
                packet.hand();
                into[i] = packet;
            }
            return count;
        } finally {
            unlock();
        }
    }

    void free(PacketBuffer[] buffers, int count) {
        Objects.checkFromIndexSize(0, count, buffers.length);
        int claimed = 0;
        int freed = 0;
        lock();
        try {
            while (claimed < count) {
                PacketPool.claim(buffers[claimed], claimed++);
            }
            while (freed < count) {
                PacketPool.putAll((Packet) buffers[freed++]);
            }
        } finally {
            PacketPool.unclaim(buffers, freed, claimed);
            unlock();
        }
    }

    int receive(PacketBuffer[] into) {
        int count;
        boolean idle;
        lock();
        try {
            callbacks(false);
            count = collect(into);
            idle = rx == null;
        } finally {
            unlock();
        }
        if (idle && count == 0) {
            // Who polls a frozen card would take the processor from those who bring it back.
            LockSupport.parkNanos(FROZEN_NANOS);
        }
        return count;
    }

    /** Collects, or leaves the caller's thread to be unparked when there is something. */
    int receiveOrWait(PacketBuffer[] into) {
        lock();
        try {
            waiter = null;
            int count = collect(into);
            if (count == 0) {
                waiter = Thread.currentThread();
                if (!callbacks(true)) {
                    count = collect(into);
                }
            }
            if (count != 0) {
                waiter = null;
                callbacks(false);
            }
            return count;
        } finally {
            unlock();
        }
    }

    /** Whether the receive queue calls; false when there is something to collect instead. */
    private boolean callbacks(boolean wanted) {
        if (rx == null) {
            return true;
        }
        if (wanted) {
            callbacks = true;
            return rx.vq.enableCallback();
        }
        if (callbacks) {
            callbacks = false;
            rx.vq.disableCallback();
        }
        return true;
    }

    void stopWaiting() {
        waiter = null;
    }

    String gone() {
        lock();
        try {
            return gone;
        } finally {
            unlock();
        }
    }

    int send(PacketBuffer[] frames, int count) {
        lock();
        try {
            if (tx == null || draining) {
                return 0;
            }
            int sent = tx.send(frames, count, card.tap());
            if (sent > 0 && tx.vq.kickPrepare()) {
                tx.vq.notifyDevice();
            }
            return sent;
        } finally {
            unlock();
        }
    }

    NetStatistics.Pair statistics() {
        lock();
        try {
            return counts.snapshot();
        } finally {
            unlock();
        }
    }

    // What the device calls.

    /** There may be something to receive; on a thread of the transport. */
    void received() {
        Thread parked = waiter;
        if (parked != null) {
            LockSupport.unpark(parked);
        }
    }

    // The life of the queues.

    /** Buffers for a pair of queues, on its way to {@link #resume}. */
    static PacketPool pool(String name, Virtqueue rx, Virtqueue tx, NetLimits limits)
            throws VirtioException {
        int each = limits.buffersEach();
        int receive = ReceiveRing.mostPosted(rx, each) * each;
        return new PacketPool(name, rx.mapping(), receive + tx.size() + SPARE);
    }

    /** Sends no more; {@link #drained} says when the device has nothing left to send. */
    void drain() {
        lock();
        try {
            draining = true;
        } finally {
            unlock();
        }
    }

    boolean drained() {
        lock();
        try {
            if (tx != null) {
                tx.reclaim();
            }
            return tx == null || tx.sending() == 0 || tx.vq.broken() != null;
        } finally {
            unlock();
        }
    }

    /** Forgets the queues; what was received waits for the consumer. */
    void freeze() {
        lock();
        try {
            if (rx != null) {
                for (Packet p = rx.nextFrame(); p != null; p = rx.nextFrame()) {
                    for (Packet piece = p; piece != null; piece = piece.next) {
                        piece.state = Packet.PENDING;
                    }
                    pending.add(p);
                }
                tx.reclaim();
                counts.drop(DropReason.IN_FLIGHT, tx.sending());
                rx = null;
                tx = null;
                callbacks = false;
            }
        } finally {
            unlock();
        }
    }

    /** Takes queues that are ready; the device before them is reset. */
    void resume(Virtqueue receive, Virtqueue transmit, PacketPool fresh, NetLimits limits) {
        lock();
        try {
            retire();
            pool = fresh;
            rx = new ReceiveRing(receive, fresh, limits, counts);
            tx = new TransmitRing(transmit, fresh, limits, counts, index);
            draining = false;
            gone = null;
            receive.disableCallback();
            transmit.disableCallback();
            rx.refill(1);
        } finally {
            unlock();
        }
        received();
    }

    /** Gives the buffers of a device that is reset back, as far as no consumer holds them. */
    private void retire() {
        if (pool != null) {
            pool.reclaim(Packet.POSTED);
            pool.retire();
            retired.add(pool);
        }
        retired.removeIf(PacketPool::closed);
    }

    /** Everything from here on ends with that reason. */
    void abandon(String reason) {
        lock();
        try {
            gone = reason;
        } finally {
            unlock();
        }
        received();
    }

    /** Gives all memory back; the device is gone for good. */
    void remove() {
        lock();
        try {
            pending.clear();
            if (pool != null) {
                pool.close();
            }
            retired.forEach(PacketPool::close);
            retired.clear();
        } finally {
            unlock();
        }
    }

    /** Sends a frame of the driver's own, or forgets it. */
    void sendOwn(byte[] frame) {
        lock();
        try {
            if (tx != null && !draining) {
                tx.reclaim();
                if (pool.free() > 0) {
                    Packet packet = pool.take();
                    packet.hand();
                    packet.frame(PacketBuffer.HEADROOM, frame.length);
                    MemorySegment.copy(
                            MemorySegment.ofArray(frame),
                            0,
                            packet.segment,
                            packet.offset,
                            frame.length);
                    if (tx.send(new PacketBuffer[] {packet}, 1, card.tap()) == 0) {
                        pool.put(packet);
                    } else if (tx.vq.kickPrepare()) {
                        tx.vq.notifyDevice();
                    }
                }
            }
        } finally {
            unlock();
        }
    }

    // With the lock held.

    private int collect(PacketBuffer[] into) {
        int stored = 0;
        while (stored < into.length && !pending.isEmpty()) {
            Packet p = pending.poll();
            counts.receivedFrames++;
            counts.receivedBytes += p.hold();
            into[stored++] = p;
        }
        if (rx != null) {
            stored = rx.frames(into, stored);
            rx.refill(ReceiveRing.REFILL);
        }
        FrameTap tap = card.tap();
        if (tap != null) {
            for (int i = 0; i < stored; i++) {
                tap.frame(index, true, into[i]);
            }
        }
        return stored;
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

    private void unlock() {
        LOCKED.setRelease(this, false);
    }
}
