package virtio.device.blk;

import virtio.api.QueueRequest;
import virtio.api.ScatterList;
import virtio.api.Virtqueue;
import virtio.api.map.DeviceMapping;

import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.concurrent.atomic.AtomicReference;

/** A virtqueue without a ring, which notices two owners at once; allocates only at first use. */
final class FakeVirtqueue implements Virtqueue {
    static final class Buffer {
        final MemorySegment[] segments = new MemorySegment[260];
        final long[] offsets = new long[260];
        final int[] lengths = new int[260];
        int count;
        int outCount;
        long token;
    }

    private final FakeDisk disk;
    private final int index;
    private final int size;
    private final QueueRequest request;
    private final AtomicReference<Thread> owner = new AtomicReference<>();
    private final ArrayDeque<Buffer> spare = new ArrayDeque<>();
    private final ArrayDeque<Buffer> added = new ArrayDeque<>();
    private final ArrayDeque<Buffer> available = new ArrayDeque<>();
    private final ArrayDeque<Buffer> used = new ArrayDeque<>();
    private boolean callbacks = true;
    private volatile boolean closed;
    volatile String broken;
    volatile int kicks;

    /** What get() throws, as map operations may that are not like others; null for nothing. */
    volatile RuntimeException thrown;

    /** What add() takes in bytes of unmapped elements before the mapping has no room. */
    volatile long mappingRoom = Long.MAX_VALUE;

    FakeVirtqueue(FakeDisk disk, int index, int size, QueueRequest request) {
        this.disk = disk;
        this.index = index;
        this.size = size;
        this.request = request;
        for (int i = 0; i < size; i++) {
            spare.add(new Buffer());
        }
    }

    private void enter() {
        Thread other = owner.compareAndExchange(null, Thread.currentThread());
        if (other != null) {
            disk.violation("two owners at once: " + other + ", " + Thread.currentThread());
        }
        if (closed) {
            disk.violation("queue touched after freeze");
        }
    }

    private void exit() {
        owner.set(null);
    }

    void close() {
        closed = true;
    }

    // The device's end.

    Buffer next() {
        synchronized (this) {
            return available.poll();
        }
    }

    void use(Buffer buffer) {
        synchronized (this) {
            used.add(buffer);
        }
    }

    void interrupt() {
        boolean call;
        synchronized (this) {
            call = callbacks && !closed;
            callbacks = false;
        }
        if (call) {
            request.callback().used(this);
        }
    }

    // The driver's end.

    @Override
    public boolean add(ScatterList buffers, long token) {
        enter();
        try {
            long bytes = 0;
            for (int i = 0; i < buffers.count(); i++) {
                if (buffers.segment(i) != null) {
                    if (!buffers.segment(i).scope().isAlive()) {
                        throw new IllegalStateException("Already closed");
                    }
                    bytes += buffers.length(i);
                }
            }
            synchronized (this) {
                Buffer buffer = broken != null || bytes > mappingRoom ? null : spare.poll();
                if (buffer == null) {
                    return false;
                }
                buffer.token = token;
                buffer.count = buffers.count();
                buffer.outCount = buffers.outCount();
                for (int i = 0; i < buffer.count; i++) {
                    buffer.segments[i] = buffers.segment(i);
                    buffer.offsets[i] = buffers.offset(i);
                    buffer.lengths[i] = buffers.length(i);
                }
                added.add(buffer);
                return true;
            }
        } finally {
            exit();
        }
    }

    @Override
    public int addOutMapped(long[] mapHandles, int[] lengths, long[] tokens, int count) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int addInMapped(long[] mapHandles, int[] lengths, long[] tokens, int count) {
        throw new UnsupportedOperationException();
    }

    @Override
    public boolean kickPrepare() {
        enter();
        synchronized (this) {
            while (!added.isEmpty()) {
                available.add(added.poll());
            }
        }
        exit();
        return true;
    }

    @Override
    public boolean notifyDevice() {
        enter();
        kicks++;
        disk.kicked(this);
        exit();
        return true;
    }

    @Override
    public long get() {
        enter();
        try {
            if (thrown != null) {
                throw thrown;
            }
            synchronized (this) {
                Buffer buffer = broken != null ? null : used.poll();
                if (buffer == null) {
                    return NONE;
                }
                spare.add(buffer);
                return buffer.token;
            }
        } finally {
            exit();
        }
    }

    @Override
    public int get(long[] tokens, int[] usedLengths) {
        int count = 0;
        for (long token; count < tokens.length && (token = get()) != NONE; count++) {
            tokens[count] = token;
        }
        return count;
    }

    @Override
    public void disableCallback() {
        synchronized (this) {
            callbacks = false;
        }
    }

    @Override
    public boolean enableCallback() {
        enter();
        try {
            synchronized (this) {
                callbacks = true;
                return used.isEmpty();
            }
        } finally {
            exit();
        }
    }

    @Override
    public String broken() {
        return broken;
    }

    @Override
    public int index() {
        return index;
    }

    @Override
    public String name() {
        return request.name();
    }

    @Override
    public int size() {
        return size;
    }

    @Override
    public int free() {
        return spare.size();
    }

    @Override
    public int maxElements() {
        return 1024;
    }

    @Override
    public DeviceMapping mapping() {
        return disk.mapping();
    }

    @Override
    public int usedLength() {
        throw new UnsupportedOperationException();
    }

    @Override
    public int enableCallbackPrepare() {
        throw new UnsupportedOperationException();
    }

    @Override
    public boolean poll(int prepared) {
        throw new UnsupportedOperationException();
    }

    @Override
    public boolean enableCallbackDelayed() {
        throw new UnsupportedOperationException();
    }

    @Override
    public long detachUnused() {
        throw new UnsupportedOperationException();
    }

    @Override
    public void reset(Recycler recycler) {
        throw new UnsupportedOperationException();
    }

    @Override
    public void resize(int size, Recycler recycler) {
        throw new UnsupportedOperationException();
    }
}
