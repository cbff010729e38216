package virtio.backend.blk;

import virtio.api.VirtioException;
import virtio.api.backend.Chain;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * A disk in a regular file.
 *
 * <p>The file is not locked: one image may be exported twice, so that a device can be moved from
 * one path to another. Two writers that do not know of each other will spoil it, as they would any
 * disk.
 *
 * <p>Java has no call that punches a hole, so zeroing writes; what is zero already is left as it
 * is, so that a sparse file stays sparse.
 */
final class FileStorage implements Storage {
    private static final int ZERO_BYTES = 256 << 10;
    private static final int MAX_PIECE_BYTES = 1 << 30;
    private static final long SIZE_CHECK_MILLIS = 1000;
    private static final ByteBuffer ZEROES =
            ByteBuffer.allocateDirect(ZERO_BYTES).asReadOnlyBuffer();

    private final Path path;
    private final boolean readOnly;
    private final int blockSize;
    private final Thread sizeWatch;
    private volatile FileChannel channel;
    private volatile long bytes;
    private volatile Runnable listener = () -> {};
    private volatile boolean closed;

    FileStorage(Path path, boolean readOnly, int blockSize) throws VirtioException {
        this.path = path;
        this.readOnly = readOnly;
        this.blockSize = blockSize;
        try {
            refuseOthers(path);
            channel = open();
            bytes = channel.size();
        } catch (NoSuchFileException e) {
            throw new VirtioException("%s does not exist".formatted(path), e);
        } catch (AccessDeniedException e) {
            throw new VirtioException(
                    "%s: permission denied for %s"
                            .formatted(path, readOnly ? "reading" : "writing; readonly may work"),
                    e);
        } catch (VirtioException e) {
            throw e;
        } catch (IOException e) {
            throw new VirtioException("%s: %s".formatted(path, e.getMessage()), e);
        }
        if (bytes < blockSize || bytes % blockSize != 0) {
            close();
            throw new VirtioException(
                    "%s has %d bytes, not a multiple of the block size %d from %d"
                            .formatted(path, bytes, blockSize, blockSize));
        }
        sizeWatch = Thread.ofPlatform().daemon().name("virtio-size " + path).start(this::watchSize);
    }

    private static void refuseOthers(Path path) throws IOException {
        Map<String, Object> attributes = Files.readAttributes(path, "unix:mode");
        int format = (int) attributes.get("mode") & 0170000;
        if (format != 0100000) {
            throw new VirtioException(
                    "%s is a %s; only a regular file can be served"
                            .formatted(
                                    path,
                                    switch (format) {
                                        case 0040000 -> "directory";
                                        case 0060000 -> "block device";
                                        case 0020000 -> "character device";
                                        case 0010000 -> "pipe";
                                        case 0140000 -> "socket";
                                        default -> "file of mode " + Integer.toOctalString(format);
                                    }));
        }
    }

    private FileChannel open() throws IOException {
        return readOnly
                ? FileChannel.open(path, StandardOpenOption.READ)
                : FileChannel.open(path, StandardOpenOption.READ, StandardOpenOption.WRITE);
    }

    @Override
    public long capacityBytes() {
        return bytes;
    }

    @Override
    public void read(long offset, Chain into, long chainOffset, long length) throws IOException {
        for (long done = 0; done < length; ) {
            long most = Math.min(length - done, MAX_PIECE_BYTES);
            ByteBuffer piece = into.writable(chainOffset + done, most).asByteBuffer();
            readFully(piece, offset + done);
            done += piece.limit();
        }
    }

    @Override
    public void write(long offset, Chain from, long chainOffset, long length) throws IOException {
        for (long done = 0; done < length; ) {
            long most = Math.min(length - done, MAX_PIECE_BYTES);
            ByteBuffer piece = from.readable(chainOffset + done, most).asByteBuffer();
            writeFully(piece, offset + done);
            done += piece.limit();
        }
    }

    @Override
    public void zero(long offset, long length) throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            ByteBuffer now = arena.allocate(Math.min(length, ZERO_BYTES)).asByteBuffer();
            for (long done = 0; done < length; ) {
                int piece = (int) Math.min(length - done, ZERO_BYTES);
                ByteBuffer zeroes = ZEROES.duplicate().limit(piece);
                readFully(now.clear().limit(piece), offset + done);
                if (now.flip().mismatch(zeroes) >= 0) {
                    writeFully(zeroes, offset + done);
                }
                done += piece;
            }
        }
    }

    @Override
    public void flush() throws IOException {
        onChannel(
                c -> {
                    c.force(false);
                    return 0;
                });
        checkSize();
    }

    @Override
    public void onCapacityChange(Runnable listener) {
        this.listener = listener;
    }

    @Override
    public void close() {
        closed = true;
        if (sizeWatch != null) {
            sizeWatch.interrupt();
            boolean interrupted = false;
            while (sizeWatch.isAlive()) {
                try {
                    sizeWatch.join();
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
        synchronized (this) {
            try {
                channel.close();
            } catch (IOException e) {
                // What was promised to be stable was forced before; nothing is lost here.
            }
        }
    }

    /**
     * Fills a buffer from its start; the position is the buffer's, exact even after an interrupt.
     */
    private void readFully(ByteBuffer into, long offset) throws IOException {
        while (into.hasRemaining()) {
            if (onChannel(c -> c.read(into, offset + into.position())) < 0) {
                throw new EOFException(
                        "%s ends at %d, read of %d bytes at %d"
                                .formatted(path, offset + into.position(), into.limit(), offset));
            }
        }
    }

    private void writeFully(ByteBuffer from, long offset) throws IOException {
        while (from.hasRemaining()) {
            onChannel(c -> c.write(from, offset + from.position()));
        }
    }

    /**
     * Does I/O although a channel is closed whenever a thread that uses it is interrupted: opens it
     * again, and keeps the interrupt for later.
     */
    private long onChannel(Io io) throws IOException {
        boolean interrupted = false;
        try {
            while (true) {
                FileChannel c = channel;
                try {
                    return io.on(c);
                } catch (ClosedChannelException e) {
                    interrupted |= e instanceof ClosedByInterruptException;
                    interrupted |= Thread.interrupted();
                    reopen(c);
                }
            }
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private synchronized void reopen(FileChannel lost) throws IOException {
        if (closed) {
            throw new IOException("%s is closed".formatted(path));
        }
        if (channel == lost) {
            channel = open();
        }
    }

    private void watchSize() {
        while (!closed) {
            try {
                TimeUnit.MILLISECONDS.sleep(SIZE_CHECK_MILLIS);
                checkSize();
            } catch (InterruptedException e) {
                return;
            } catch (IOException e) {
                // The next request says what is wrong with the file.
            }
        }
    }

    private void checkSize() throws IOException {
        long size = onChannel(FileChannel::size);
        boolean changed;
        synchronized (this) {
            long now = size / blockSize * blockSize;
            changed = now != bytes;
            bytes = now;
        }
        if (changed) {
            listener.run();
        }
    }

    /** The path that stays the same whatever links lead to it. */
    static Path realPath(Path path) throws VirtioException {
        try {
            return path.toRealPath();
        } catch (NoSuchFileException e) {
            throw new VirtioException("%s does not exist".formatted(path), e);
        } catch (IOException e) {
            throw new VirtioException("%s: %s".formatted(path, e), e);
        }
    }

    private interface Io {
        long on(FileChannel channel) throws IOException;
    }
}
