package virtio.ring.queue;

import virtio.api.backend.Chain;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The private copy of one available buffer: where its checked pieces lie.
 *
 * <p>One in a single piece, which nearly all are, is {@link #word} and {@link #address}, so that it
 * takes no more stores than it must. Of the others:
 *
 * <pre>
 * addresses, lengths   | readable pieces ... | writable pieces ... |
 *                      0                     readablePieces        pieces
 * </pre>
 */
final class RingChain implements Chain {
    /** Bounds what a hostile buffer makes us keep. */
    static final int MAX_PIECES = 65536;

    /** In {@link #word}: of several pieces, or from an indirect table. */
    private static final long MANY = (long) Descriptor.NEXT << PackedRing.FLAGS_SHIFT;

    private static final long WRITE = (long) Descriptor.WRITE << PackedRing.FLAGS_SHIFT;
    private static final long LENGTH = 0xFFFFFFFFL;

    final DeviceEnd end;

    /** The end's key, negative while this holds a buffer: one comparison says whose and whether. */
    int key;

    /** As in a packed descriptor: length, head descriptor or buffer id, and flags. */
    long word;

    private long address;

    /** With IN_ORDER: how many were taken before it. */
    long turn;

    private int descriptors;
    private long readableBytes;
    private long writableBytes;
    private int readablePieces;
    private int pieces;
    private long[] addresses = new long[16];
    private long[] lengths = new long[16];

    /** Where the last access was: sequential ones do not start over. */
    private int piece;

    private long pieceStart;

    RingChain(DeviceEnd end) {
        this.end = end;
        key = end.key;
    }

    boolean open() {
        return key < 0;
    }

    /** A buffer in one piece, of one descriptor; the word's NEXT and INDIRECT are not set. */
    void only(long word, long address) {
        this.word = word;
        this.address = address;
    }

    /** A buffer whose pieces follow by {@link #append}. */
    void reset(int id) {
        identify(id, 1);
        readableBytes = 0;
        writableBytes = 0;
        readablePieces = 0;
        pieces = 0;
        piece = 0;
        pieceStart = 0;
    }

    void identify(int id, int descriptors) {
        word = MANY | (long) id << PackedRing.ID_SHIFT;
        this.descriptors = descriptors;
    }

    void append(long address, long length, boolean write) {
        int at = pieces;
        if (at == addresses.length) {
            addresses = Arrays.copyOf(addresses, at * 2);
            lengths = Arrays.copyOf(lengths, at * 2);
        }
        addresses[at] = address;
        lengths[at] = length;
        pieces = at + 1;
        if (write) {
            writableBytes += length;
        } else {
            readableBytes += length;
            readablePieces = at + 1;
        }
    }

    /** Head descriptor or buffer id. */
    int id() {
        return PackedRing.id(word);
    }

    /** Packed: descriptors of the ring that it takes. */
    int descriptors() {
        return single() ? 1 : descriptors;
    }

    int pieces() {
        return single() ? 1 : pieces;
    }

    /** Of one descriptor, in one piece. */
    boolean single() {
        return (word & MANY) == 0;
    }

    @Override
    public long readableBytes() {
        return single() ? (word & WRITE) == 0 ? word & LENGTH : 0 : readableBytes;
    }

    @Override
    public long writableBytes() {
        return single() ? (word & WRITE) != 0 ? word & LENGTH : 0 : writableBytes;
    }

    @Override
    public void read(long offset, MemorySegment into, long intoOffset, long length) {
        check(offset, length, false);
        for (long done = 0; done < length; ) {
            long address = seek(offset + done, false);
            long part = Math.min(length - done, left(offset + done));
            RingMemory.copy(address, into, intoOffset + done, part);
            done += part;
        }
    }

    @Override
    public void write(long offset, MemorySegment from, long fromOffset, long length) {
        check(offset, length, true);
        for (long done = 0; done < length; ) {
            long address = seek(offset + done, true);
            long part = Math.min(length - done, left(offset + done));
            RingMemory.copy(from, fromOffset + done, address, part);
            done += part;
        }
    }

    @Override
    public void fill(long offset, long length) {
        check(offset, length, true);
        for (long done = 0; done < length; ) {
            long address = seek(offset + done, true);
            long part = Math.min(length - done, left(offset + done));
            RingMemory.slice(address, part).fill((byte) 0);
            done += part;
        }
    }

    @Override
    public int read8(long offset) {
        check(offset, 1, false);
        return RingMemory.get8(seek(offset, false));
    }

    @Override
    public int read32(long offset) {
        check(offset, 4, false);
        long address = seek(offset, false);
        return left(offset) >= 4 ? RingMemory.get32(address) : (int) bytes(offset, 4);
    }

    @Override
    public long read64(long offset) {
        check(offset, 8, false);
        long address = seek(offset, false);
        return left(offset) >= 8 ? RingMemory.get64(address) : bytes(offset, 8);
    }

    private long bytes(long offset, int count) {
        long value = 0;
        for (int i = 0; i < count; i++) {
            value |= (long) RingMemory.get8(seek(offset + i, false)) << 8 * i;
        }
        return value;
    }

    @Override
    public void write8(long offset, int value) {
        check(offset, 1, true);
        RingMemory.set8(seek(offset, true), value);
    }

    @Override
    public MemorySegment readable(long offset, long length) {
        check(offset, 1, false);
        long address = seek(offset, false);
        return RingMemory.slice(address, Math.min(length, left(offset))).asReadOnly();
    }

    @Override
    public MemorySegment writable(long offset, long length) {
        check(offset, 1, true);
        long address = seek(offset, true);
        return RingMemory.slice(address, Math.min(length, left(offset)));
    }

    private void check(long offset, long length, boolean write) {
        if (!open() || !end.serving()) {
            throw new IllegalStateException(
                    "queue %d: the chain is not open any more".formatted(end.index));
        }
        long limit = write ? writableBytes() : readableBytes();
        if (offset < 0 || length < 0 || length > limit - offset) {
            throw new IndexOutOfBoundsException(
                    "%d bytes at %d of the %s part, which has %d"
                            .formatted(length, offset, write ? "writable" : "readable", limit));
        }
    }

    /** The address of a checked offset; leaves the cursor at its piece. */
    private long seek(long offset, boolean write) {
        if (single()) {
            return address + offset;
        }
        int first = write ? readablePieces : 0;
        int at = piece;
        long start = pieceStart;
        if (at < first || !write && at >= readablePieces || offset < start) {
            at = first;
            start = 0;
        }
        while (offset - start >= lengths[at]) {
            start += lengths[at];
            at++;
        }
        piece = at;
        pieceStart = start;
        return addresses[at] + (offset - start);
    }

    /** Bytes from an offset to the end of the piece that {@link #seek} found for it. */
    private long left(long offset) {
        return single() ? (word & LENGTH) - offset : lengths[piece] - (offset - pieceStart);
    }
}
