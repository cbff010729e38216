package virtio.backend.blk;

import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.backend.DeviceQueue;
import virtio.api.block.BlockRequest;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.List;
import java.util.Queue;

/** A device's queue whose driver is the test: buffers lie in pieces of native memory. */
final class FakeQueue implements DeviceQueue {
    private static final ValueLayout.OfInt INT =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private final Backend backend;
    private final int index;
    private final Queue<Buffer> available = new ArrayDeque<>();

    FakeQueue(Backend backend, int index) {
        this.backend = backend;
        this.index = index;
        backend.queueStarted(this);
    }

    /** One buffer with its elements. */
    static final class Buffer {
        List<MemorySegment> out = List.of();
        List<MemorySegment> in = List.of();
        long written = -1;
    }

    /** Has a request served; its status. */
    int request(int type, long sector, List<MemorySegment> out, List<MemorySegment> in)
            throws Exception {
        MemorySegment header = Arena.ofAuto().allocate(BlockRequest.HEADER_BYTES);
        header.set(INT, BlockRequest.TYPE, type);
        header.set(LONG, BlockRequest.SECTOR, sector);
        MemorySegment status = Arena.ofAuto().allocate(1);
        status.fill((byte) 0x55);
        Buffer buffer = new Buffer();
        buffer.out = concat(List.of(header), out);
        buffer.in = concat(in, List.of(status));
        serve(buffer);
        long writable = buffer.in.stream().mapToLong(MemorySegment::byteSize).sum();
        if (buffer.written != writable) {
            throw new AssertionError("used length " + buffer.written + " of " + writable);
        }
        return status.get(ValueLayout.JAVA_BYTE, 0);
    }

    void serve(Buffer buffer) throws Exception {
        available.add(buffer);
        backend.process(this);
    }

    int read(long sector, byte[] into) throws Exception {
        List<MemorySegment> pieces = pieces(into);
        int status = request(BlockRequest.IN, sector, List.of(), pieces);
        int at = 0;
        for (MemorySegment piece : pieces) {
            MemorySegment.copy(piece, ValueLayout.JAVA_BYTE, 0, into, at, (int) piece.byteSize());
            at += (int) piece.byteSize();
        }
        return status;
    }

    int write(long sector, byte[] from) throws Exception {
        return request(BlockRequest.OUT, sector, pieces(from), List.of());
    }

    int range(int type, long sector, long sectors, int flags) throws Exception {
        return request(type, 0, List.of(segment(sector, sectors, flags)), List.of());
    }

    static MemorySegment segment(long sector, long sectors, int flags) {
        MemorySegment segment = Arena.ofAuto().allocate(BlockRequest.SEGMENT_BYTES);
        segment.set(LONG, 0, sector);
        segment.set(INT, BlockRequest.SEGMENT_SECTORS, (int) sectors);
        segment.set(INT, BlockRequest.SEGMENT_FLAGS, flags);
        return segment;
    }

    /** The bytes in native memory, in two pieces that split within a sector. */
    private static List<MemorySegment> pieces(byte[] bytes) {
        if (bytes.length == 0) {
            return List.of();
        }
        int cut = Math.min(bytes.length, 200);
        MemorySegment first = Arena.ofAuto().allocate(cut);
        first.copyFrom(MemorySegment.ofArray(bytes).asSlice(0, cut));
        if (cut == bytes.length) {
            return List.of(first);
        }
        MemorySegment second = Arena.ofAuto().allocate(bytes.length - cut);
        second.copyFrom(MemorySegment.ofArray(bytes).asSlice(cut));
        return List.of(first, second);
    }

    private static List<MemorySegment> concat(List<MemorySegment> a, List<MemorySegment> b) {
        MemorySegment[] all = Arrays.copyOf(a.toArray(MemorySegment[]::new), a.size() + b.size());
        for (int i = 0; i < b.size(); i++) {
            all[a.size() + i] = b.get(i);
        }
        return List.of(all);
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
        return new Pieces();
    }

    @Override
    public boolean next(Chain into) {
        ((Pieces) into).buffer = available.poll();
        return ((Pieces) into).buffer != null;
    }

    @Override
    public void complete(Chain chain, long written) {
        ((Pieces) chain).buffer.written = written;
    }

    @Override
    public void complete(Chain[] chains, long[] written, int count) {
        for (int i = 0; i < count; i++) {
            complete(chains[i], written[i]);
        }
    }

    @Override
    public void notifyDriver() {}

    @Override
    public void holdNotifications(boolean hold) {}

    @Override
    public void schedule() {
        throw new UnsupportedOperationException();
    }

    private static final class Pieces implements Chain {
        Buffer buffer;

        private static long bytes(List<MemorySegment> pieces) {
            return pieces.stream().mapToLong(MemorySegment::byteSize).sum();
        }

        private static MemorySegment piece(List<MemorySegment> pieces, long offset, long length) {
            long at = offset;
            for (MemorySegment piece : pieces) {
                if (at < piece.byteSize()) {
                    return piece.asSlice(at, Math.min(length, piece.byteSize() - at));
                }
                at -= piece.byteSize();
            }
            throw new IndexOutOfBoundsException("offset " + offset + " of " + bytes(pieces));
        }

        @Override
        public long readableBytes() {
            return bytes(buffer.out);
        }

        @Override
        public long writableBytes() {
            return bytes(buffer.in);
        }

        @Override
        public void read(long offset, MemorySegment into, long intoOffset, long length) {
            for (long done = 0; done < length; ) {
                MemorySegment piece = readable(offset + done, length - done);
                into.asSlice(intoOffset + done, piece.byteSize()).copyFrom(piece);
                done += piece.byteSize();
            }
        }

        @Override
        public void write(long offset, MemorySegment from, long fromOffset, long length) {
            for (long done = 0; done < length; ) {
                MemorySegment piece = writable(offset + done, length - done);
                piece.copyFrom(from.asSlice(fromOffset + done, piece.byteSize()));
                done += piece.byteSize();
            }
        }

        @Override
        public void fill(long offset, long length) {
            for (long done = 0; done < length; ) {
                done += writable(offset + done, length - done).fill((byte) 0).byteSize();
            }
        }

        @Override
        public int read8(long offset) {
            return readable(offset, 1).get(ValueLayout.JAVA_BYTE, 0) & 0xFF;
        }

        @Override
        public int read32(long offset) {
            byte[] bytes = new byte[4];
            read(offset, MemorySegment.ofArray(bytes), 0, 4);
            return MemorySegment.ofArray(bytes).get(INT, 0);
        }

        @Override
        public long read64(long offset) {
            byte[] bytes = new byte[8];
            read(offset, MemorySegment.ofArray(bytes), 0, 8);
            return MemorySegment.ofArray(bytes).get(LONG, 0);
        }

        @Override
        public void write8(long offset, int value) {
            writable(offset, 1).set(ValueLayout.JAVA_BYTE, 0, (byte) value);
        }

        @Override
        public MemorySegment readable(long offset, long length) {
            return piece(buffer.out, offset, length).asReadOnly();
        }

        @Override
        public MemorySegment writable(long offset, long length) {
            return piece(buffer.in, offset, length);
        }
    }
}
