package virtio.backend.net;

import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Semaphore;

/** A device's queue whose driver is the test; what the device does with it is counted. */
final class FakeQueue implements DeviceQueue {
    /** One buffer: what the device reads, and what it may write. */
    static final class Buffer {
        final byte[] out;
        final byte[] in;
        long written = -1;

        Buffer(byte[] out, int writable) {
            this.out = out;
            in = new byte[writable];
            Arrays.fill(in, (byte) 0x55);
        }

        byte[] bytes() {
            return Arrays.copyOf(in, (int) written);
        }
    }

    final ArrayDeque<Buffer> available = new ArrayDeque<>();
    final List<Buffer> used = new ArrayList<>();

    /** How many buffers were used at once, each time. */
    final List<Integer> turns = new ArrayList<>();

    final Semaphore scheduled = new Semaphore(0);
    int notified;
    private final NetBackend backend;
    private final int index;
    private boolean held;

    FakeQueue(NetBackend backend, int index) {
        this.backend = backend;
        this.index = index;
        backend.queueStarted(this);
    }

    /** Makes one more available. */
    Buffer add(byte[] out, int writable) {
        Buffer buffer = new Buffer(out, writable);
        available.add(buffer);
        return buffer;
    }

    /** As the core does. */
    void serve() throws Exception {
        int before = used.size();
        backend.process(this);
        if (!held && used.size() != before) {
            notified++;
        }
    }

    @Override
    public int index() {
        return index;
    }

    @Override
    public int size() {
        return 256;
    }

    @Override
    public Chain newChain() {
        return new Whole();
    }

    @Override
    public boolean next(Chain into) {
        ((Whole) into).buffer = available.poll();
        return ((Whole) into).buffer != null;
    }

    @Override
    public void complete(Chain chain, long written) {
        complete(((Whole) chain).buffer, written);
        turns.add(1);
    }

    private void complete(Buffer buffer, long written) {
        buffer.written = written;
        used.add(buffer);
    }

    @Override
    public void complete(Chain[] chains, long[] written, int count) {
        for (int i = 0; i < count; i++) {
            complete(((Whole) chains[i]).buffer, written[i]);
        }
        turns.add(count);
    }

    @Override
    public void notifyDriver() {
        notified++;
    }

    @Override
    public void holdNotifications(boolean hold) {
        held = hold;
    }

    @Override
    public void schedule() {
        scheduled.release();
    }

    private static final class Whole implements Chain {
        Buffer buffer;

        @Override
        public long readableBytes() {
            return buffer.out.length;
        }

        @Override
        public long writableBytes() {
            return buffer.in.length;
        }

        @Override
        public void read(long offset, MemorySegment into, long intoOffset, long length) {
            MemorySegment.copy(readable(offset, length), 0, into, intoOffset, length);
        }

        @Override
        public void write(long offset, MemorySegment from, long fromOffset, long length) {
            MemorySegment.copy(from, fromOffset, writable(offset, length), 0, length);
        }

        @Override
        public void fill(long offset, long length) {
            writable(offset, length).fill((byte) 0);
        }

        @Override
        public int read8(long offset) {
            return buffer.out[(int) offset] & 0xFF;
        }

        @Override
        public int read32(long offset) {
            return readable(offset, 4)
                    .get(ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN), 0);
        }

        @Override
        public long read64(long offset) {
            return readable(offset, 8)
                    .get(ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN), 0);
        }

        @Override
        public void write8(long offset, int value) {
            buffer.in[(int) offset] = (byte) value;
        }

        @Override
        public MemorySegment readable(long offset, long length) {
            return MemorySegment.ofArray(buffer.out).asSlice(offset, length);
        }

        @Override
        public MemorySegment writable(long offset, long length) {
            return MemorySegment.ofArray(buffer.in).asSlice(offset, length);
        }
    }
}
