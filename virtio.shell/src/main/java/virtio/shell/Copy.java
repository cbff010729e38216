package virtio.shell;

import org.apache.felix.service.command.CommandSession;
import org.apache.felix.service.command.Descriptor;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;

import java.io.IOException;
import java.io.PrintStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/**
 * Copies between disks and files, several transfers in flight, and prints the checksum of what was
 * copied.
 */
@Component(
        service = Copy.class,
        property = {"osgi.command.scope=virtio", "osgi.command.function=copy"})
public final class Copy {
    private static final String USAGE = "copy FROM TO [--json]";
    private static final String FILE = "file:";
    private static final int CHUNK_BYTES = 256 << 10;
    private static final int DEPTH = 8;
    private static final int BAR = 40;

    private final Disks disks;

    /** Among the container's disks. */
    @Activate
    public Copy(@Reference Disks disks) {
        this.disks = disks;
    }

    /** One side of a copy. */
    private interface End extends AutoCloseable {
        long bytes() throws IOException;

        MemorySegment allocate(long bytes) throws IOException;

        void free(MemorySegment memory);

        CompletableFuture<Void> read(long offset, MemorySegment into) throws IOException;

        CompletableFuture<Void> write(long offset, MemorySegment from) throws IOException;

        void finish() throws Exception;

        @Override
        void close() throws IOException;
    }

    @Descriptor("copy a disk or file to a disk or file: copy blk0 file:/tmp/blk0.img")
    public void copy(CommandSession session, String... args) throws Exception {
        Arguments a = Arguments.of(session, USAGE, args);
        if (a.help()) {
            return;
        }
        Path source = file(a.get(0));
        Path target = file(a.get(1));
        // Opening a file to write empties it.
        if (source != null
                && target != null
                && Files.exists(target)
                && Files.isSameFile(source, target)) {
            throw new VirtioException("%s and %s are the same file".formatted(a.get(0), a.get(1)));
        }
        try (End from = open(a.get(0), source, false);
                End to = open(a.get(1), target, true)) {
            long bytes = from.bytes();
            if (target == null && bytes > to.bytes()) {
                throw new VirtioException(
                        "%s has %d bytes, %s takes %d"
                                .formatted(a.get(0), bytes, a.get(1), to.bytes()));
            }
            long begin = System.nanoTime();
            String sha256 = transfer(from, to, bytes, a.has("json") ? null : System.err);
            double seconds = (System.nanoTime() - begin) / 1e9;
            record Copied(String from, String to, long bytes, double seconds, String sha256) {}
            Copied copied = new Copied(a.get(0), a.get(1), bytes, seconds, sha256);
            session.getConsole()
                    .println(
                            a.has("json")
                                    ? Json.of(copied)
                                    : "%d bytes in %.2f s, %.0f MB/s%nsha256 %s"
                                            .formatted(
                                                    bytes, seconds, bytes / seconds / 1e6, sha256));
        }
    }

    private static String transfer(End from, End to, long bytes, PrintStream progress)
            throws Exception {
        MessageDigest digest = sha256();
        MemorySegment[] buffers = new MemorySegment[DEPTH];
        @SuppressWarnings({"unchecked", "rawtypes"})
        CompletableFuture<Void>[] reads = new CompletableFuture[DEPTH];
        @SuppressWarnings({"unchecked", "rawtypes"})
        CompletableFuture<Void>[] writes = new CompletableFuture[DEPTH];
        long chunks = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
        try {
            for (int i = 0; i < Math.min(DEPTH, chunks); i++) {
                buffers[i] = from.allocate(CHUNK_BYTES);
            }
            for (long chunk = 0; chunk < chunks + DEPTH; chunk++) {
                int slot = (int) (chunk % DEPTH);
                long behind = chunk - DEPTH;
                if (behind >= 0) {
                    wait(writes[slot]);
                }
                if (chunk < chunks) {
                    reads[slot] = from.read(chunk * CHUNK_BYTES, piece(buffers, chunk, bytes));
                }
                // Half the depth reads ahead while the other half is being written.
                long ready = chunk - DEPTH / 2;
                if (ready >= 0 && ready < chunks) {
                    int at = (int) (ready % DEPTH);
                    wait(reads[at]);
                    MemorySegment piece = piece(buffers, ready, bytes);
                    digest.update(piece.asByteBuffer());
                    writes[at] = to.write(ready * CHUNK_BYTES, piece);
                    show(progress, Math.min(bytes, (ready + 1) * CHUNK_BYTES), bytes);
                }
            }
            to.finish();
        } finally {
            settle(reads);
            settle(writes);
            for (MemorySegment buffer : buffers) {
                if (buffer != null) {
                    from.free(buffer);
                }
            }
        }
        return HexFormat.of().formatHex(digest.digest());
    }

    private static MemorySegment piece(MemorySegment[] buffers, long chunk, long bytes) {
        return buffers[(int) (chunk % DEPTH)].asSlice(
                0, Math.min(CHUNK_BYTES, bytes - chunk * CHUNK_BYTES));
    }

    /** A buffer must not be freed under a transfer, whatever became of the others. */
    private static void settle(CompletableFuture<Void>[] transfers) {
        for (CompletableFuture<Void> transfer : transfers) {
            if (transfer != null) {
                transfer.exceptionally(e -> null).join();
            }
        }
    }

    private static void wait(CompletableFuture<Void> transfer) throws Exception {
        try {
            transfer.get();
        } catch (ExecutionException e) {
            throw e.getCause() instanceof Exception cause ? cause : e;
        }
    }

    private static void show(PrintStream progress, long done, long bytes) {
        if (progress == null || System.console() == null || !System.console().isTerminal()) {
            return;
        }
        int filled = (int) (done * BAR / bytes);
        progress.printf(
                "\r[%s%s] %3d %%%s",
                "=".repeat(filled),
                " ".repeat(BAR - filled),
                done * 100 / bytes,
                done == bytes ? "\n" : "");
        progress.flush();
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The file that is meant; null when it is a disk. */
    private static Path file(String name) {
        return name.startsWith(FILE) ? Path.of(name.substring(FILE.length())) : null;
    }

    private End open(String name, Path file, boolean write) throws IOException {
        return file == null ? new DiskEnd(disks.get(name)) : new FileEnd(file, write);
    }

    private record DiskEnd(BlockDevice disk) implements End {
        @Override
        public long bytes() {
            return disk.capacityBytes();
        }

        @Override
        public MemorySegment allocate(long bytes) throws IOException {
            return disk.allocate(bytes);
        }

        @Override
        public void free(MemorySegment memory) {
            disk.free(memory);
        }

        @Override
        public CompletableFuture<Void> read(long offset, MemorySegment into) {
            return disk.read(offset, into);
        }

        @Override
        public CompletableFuture<Void> write(long offset, MemorySegment from) throws IOException {
            long rest = from.byteSize() % disk.blockSize();
            if (rest != 0) {
                throw new VirtioException(
                        "the source ends %d bytes into a block of %d bytes of %s"
                                .formatted(rest, disk.blockSize(), disk.name()));
            }
            return disk.write(offset, from);
        }

        @Override
        public void finish() throws Exception {
            Copy.wait(disk.flush());
        }

        @Override
        public void close() {}
    }

    private static final class FileEnd implements End {
        private final FileChannel file;
        private final Arena arena = Arena.ofShared();

        FileEnd(Path path, boolean write) throws IOException {
            file =
                    write
                            ? FileChannel.open(
                                    path,
                                    StandardOpenOption.WRITE,
                                    StandardOpenOption.CREATE,
                                    StandardOpenOption.TRUNCATE_EXISTING)
                            : FileChannel.open(path, StandardOpenOption.READ);
        }

        @Override
        public long bytes() throws IOException {
            return file.size();
        }

        @Override
        public MemorySegment allocate(long bytes) {
            return arena.allocate(bytes, 4096);
        }

        @Override
        public void free(MemorySegment memory) {
            // All at once, when the file is closed.
        }

        @Override
        public CompletableFuture<Void> read(long offset, MemorySegment into) throws IOException {
            ByteBuffer buffer = into.asByteBuffer();
            while (buffer.hasRemaining()) {
                if (file.read(buffer, offset + buffer.position()) < 0) {
                    throw new VirtioException("the file became shorter while it was copied");
                }
            }
            return CompletableFuture.completedFuture(null);
        }

        @Override
        public CompletableFuture<Void> write(long offset, MemorySegment from) throws IOException {
            ByteBuffer buffer = from.asByteBuffer();
            while (buffer.hasRemaining()) {
                file.write(buffer, offset + buffer.position());
            }
            return CompletableFuture.completedFuture(null);
        }

        @Override
        public void finish() throws IOException {
            file.force(true);
        }

        @Override
        public void close() throws IOException {
            file.close();
            arena.close();
        }
    }
}
