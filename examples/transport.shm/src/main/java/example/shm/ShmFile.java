package example.shm;

import static java.nio.file.StandardOpenOption.CREATE_NEW;
import static java.nio.file.StandardOpenOption.READ;
import static java.nio.file.StandardOpenOption.WRITE;

import virtio.api.Features;
import virtio.api.VirtioException;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

/**
 * The file at one end: opened, checked, and its registers mapped.
 *
 * <p>Whoever may open the file may also cut it off, and memory behind its end is a fault that the
 * JVM turns into an {@link InternalError} in the thread that touched it: in compiled code a moment
 * after the access, beyond a catch around it. Both ends look at {@link #checkSize} now and then,
 * take that error for the end of the other one where it ends a thread of theirs, and look before
 * they write on a thread that is not.
 *
 * <p>The file's lock is held for moments only, by who takes over something in the file. The kernel
 * drops the locks of a process on a file when it closes any descriptor of that file, so opening,
 * locking and closing are done by one thread at a time. Thread-safe.
 */
final class ShmFile implements AutoCloseable {
    private static final ValueLayout.OfInt INT =
            ValueLayout.JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final VarHandle INT_AT = INT.varHandle();
    private static final VarHandle LONG_AT = LONG.varHandle();

    private static final long LOCK_MILLIS = 2_000;
    private static final long MAX_REGION_BYTES = 1L << 32;
    private static final Object OPENING = new Object();
    private static final AtomicInteger CREATED = new AtomicInteger();

    /** What is done under the file's lock. */
    interface Locked<T> {
        T run() throws IOException;
    }

    final String name;
    final Path path;
    private final FileChannel channel;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment registers;
    private int deviceType;
    private int queueCount;
    private int maxQueueSize;
    private int configBytes;
    private long regionBytes;

    private ShmFile(Path path, FileChannel channel) throws IOException {
        name = "shm:" + path;
        this.path = path;
        this.channel = channel;
        registers = channel.map(MapMode.READ_WRITE, 0, ShmLayout.REGISTER_BYTES, arena);
    }

    /** An address as a path, absolute and without detours, so that a file has one address. */
    static Path path(String address) throws VirtioException {
        Path path;
        try {
            path = Path.of(address);
        } catch (RuntimeException e) {
            throw new VirtioException("shm:%s is no path".formatted(address), e);
        }
        if (!path.isAbsolute() || path.getFileName() == null || !path.normalize().equals(path)) {
            throw new VirtioException(
                    "shm:%s is not an absolute path of a file, as shm:/dev/shm/disk0"
                            .formatted(address));
        }
        return path;
    }

    /** What a new file says of itself. */
    record Identity(
            int deviceType, int queueCount, int maxQueueSize, Features features, byte[] config) {}

    /**
     * Makes the file of a device and gives it its name when it is complete.
     *
     * @throws VirtioException when there is a file of that name, unless a dead device end left it
     */
    static ShmFile create(Path path, long regionBytes, Identity identity) throws VirtioException {
        Path unnamed =
                path.resolveSibling(
                        ".%s.%d-%d"
                                .formatted(
                                        path.getFileName(),
                                        Owner.self().pid(),
                                        CREATED.getAndIncrement()));
        synchronized (OPENING) {
            ShmFile file = null;
            try {
                FileChannel channel =
                        FileChannel.open(
                                unnamed,
                                Set.of(CREATE_NEW, READ, WRITE),
                                PosixFilePermissions.asFileAttribute(
                                        PosixFilePermissions.fromString("rw-------")));
                long bytes = ShmLayout.REGISTER_BYTES + ShmLayout.REGIONS * regionBytes;
                channel.write(ByteBuffer.allocate(1), bytes - 1);
                file = opened(path, channel);
                file.identify(identity, regionBytes);
                file.take();
                Files.createLink(path, unnamed);
                return file;
            } catch (IOException e) {
                if (file != null) {
                    file.close();
                }
                if (e instanceof FileAlreadyExistsException) {
                    throw new VirtioException("shm:%s is exported already".formatted(path), e);
                }
                throw e instanceof VirtioException v ? v : failed(path, "be made", e);
            } finally {
                delete(unnamed);
            }
        }
    }

    private static ShmFile opened(Path path, FileChannel channel) throws IOException {
        try {
            return new ShmFile(path, channel);
        } catch (IOException | RuntimeException e) {
            channel.close();
            throw e;
        }
    }

    private void identify(Identity identity, long bytes) {
        regionBytes = bytes;
        set(ShmLayout.VERSION_AT, ShmLayout.VERSION);
        set(ShmLayout.DEVICE_TYPE, identity.deviceType());
        set(ShmLayout.QUEUE_COUNT, identity.queueCount());
        set(ShmLayout.MAX_QUEUE_SIZE, identity.maxQueueSize());
        set(ShmLayout.CONFIG_BYTES, identity.config().length);
        write(ShmLayout.CONFIG, identity.config());
        setLong(ShmLayout.REGION_BYTES, bytes);
        for (int word = 0; word < ShmLayout.FEATURE_WORDS; word++) {
            setLong(ShmLayout.DEVICE_FEATURES + 8 * word, identity.features().word(word));
        }
        setOwner(ShmLayout.DEVICE_OWNER, Owner.self());
        set(ShmLayout.MAGIC_AT, ShmLayout.MAGIC);
    }

    /** Removes what a dead device end left under the name; nothing else is ever removed. */
    private void take() throws IOException {
        if (!Files.exists(path)) {
            return;
        }
        try (ShmFile old = open(path)) {
            old.locked(
                    () -> {
                        Owner owner = old.owner(ShmLayout.DEVICE_OWNER);
                        if (owner.isAlive()) {
                            throw new VirtioException(
                                    "%s is exported already, by %s: choose another path"
                                            .formatted(name, owner));
                        }
                        // Of two that find the same file, the second finds that it is gone.
                        if (old.get(ShmLayout.MAGIC_AT) == ShmLayout.MAGIC) {
                            old.set(ShmLayout.MAGIC_AT, 0);
                            Files.deleteIfExists(path);
                        }
                        return null;
                    });
        }
    }

    /**
     * Opens the file of a device.
     *
     * @throws VirtioException when it is not one, naming value and limit
     */
    static ShmFile open(Path path) throws VirtioException {
        synchronized (OPENING) {
            ShmFile file = null;
            try {
                FileChannel channel = FileChannel.open(path, READ, WRITE);
                try {
                    long bytes = channel.size();
                    if (bytes < ShmLayout.REGISTER_BYTES) {
                        throw new VirtioException(
                                "shm:%s is no device's file: it has %d bytes, not %d or more"
                                        .formatted(path, bytes, ShmLayout.REGISTER_BYTES));
                    }
                } catch (IOException e) {
                    channel.close();
                    throw e;
                }
                file = opened(path, channel);
                file.check();
                return file;
            } catch (NoSuchFileException e) {
                throw new VirtioException(
                        "shm:%s does not exist: export a device there first".formatted(path), e);
            } catch (VirtioException | RuntimeException e) {
                if (file != null) {
                    file.close();
                }
                throw e;
            } catch (InternalError e) {
                file.close();
                throw file.cutOff(e);
            } catch (IOException e) {
                throw failed(path, "be opened", e);
            }
        }
    }

    private static VirtioException failed(Path path, String what, IOException e) {
        return new VirtioException("shm:%s cannot %s: %s".formatted(path, what, e), e);
    }

    private void check() throws VirtioException {
        int magic = get(ShmLayout.MAGIC_AT);
        if (magic != ShmLayout.MAGIC) {
            throw new VirtioException(
                    "%s is no device's file: magic value 0x%08x, not 0x%08x"
                            .formatted(name, magic, ShmLayout.MAGIC));
        }
        int version = get(ShmLayout.VERSION_AT);
        if (version != ShmLayout.VERSION) {
            throw new VirtioException(
                    "%s has layout version %d, only version %d is known: use the same bundle at"
                                    .formatted(name, version, ShmLayout.VERSION)
                            + " both ends");
        }
        // Read once, here: what is in the file later is the other end's to change.
        deviceType = get(ShmLayout.DEVICE_TYPE);
        queueCount = get(ShmLayout.QUEUE_COUNT);
        limit("queues", queueCount, 1, ShmLayout.MAX_QUEUES);
        maxQueueSize = get(ShmLayout.MAX_QUEUE_SIZE);
        limit("descriptors in a queue", maxQueueSize, 1, ShmLayout.MAX_QUEUE_SIZE_LIMIT);
        configBytes = get(ShmLayout.CONFIG_BYTES);
        limit("configuration bytes", configBytes, 0, ShmLayout.MAX_CONFIG_BYTES);
        regionBytes = getLong(ShmLayout.REGION_BYTES);
        limit("bytes of a region", regionBytes, 2 * ShmLayout.PAGE_BYTES, MAX_REGION_BYTES);
        if (regionBytes % ShmLayout.PAGE_BYTES != 0) {
            throw new VirtioException(
                    "%s has regions of %d bytes, not whole pages of %d"
                            .formatted(name, regionBytes, ShmLayout.PAGE_BYTES));
        }
        checkSize();
    }

    /** What the JVM makes of memory behind the file's end, as a sentence. */
    VirtioException cutOff(InternalError cause) {
        return new VirtioException("%s was cut off while it was used".formatted(name), cause);
    }

    private void limit(String what, long value, long least, long most) throws VirtioException {
        if (value < least || value > most) {
            throw new VirtioException(
                    "%s has %d %s, limits are %d and %d".formatted(name, value, what, least, most));
        }
    }

    /** That the file still has the bytes it had; an error naming both numbers when not. */
    void checkSize() throws VirtioException {
        long needed = ShmLayout.REGISTER_BYTES + ShmLayout.REGIONS * regionBytes;
        long bytes;
        try {
            bytes = channel.size();
        } catch (IOException e) {
            throw new VirtioException("%s does not answer: %s".formatted(name, e), e);
        }
        if (bytes < needed) {
            throw new VirtioException(
                    "%s was cut off: it has %d bytes, not %d".formatted(name, bytes, needed));
        }
    }

    /** Whether {@link #checkSize} finds nothing. */
    boolean isWhole() {
        try {
            checkSize();
            return true;
        } catch (VirtioException e) {
            return false;
        }
    }

    int deviceType() {
        return deviceType;
    }

    int queueCount() {
        return queueCount;
    }

    int maxQueueSize() {
        return maxQueueSize;
    }

    int configBytes() {
        return configBytes;
    }

    long regionBytes() {
        return regionBytes;
    }

    /** Offset of a region in the file, which is the map handle of its first byte. */
    long regionOffset(int region) {
        return ShmLayout.REGISTER_BYTES + region * regionBytes;
    }

    MemorySegment mapRegion(int region, Arena into) throws VirtioException {
        try {
            return channel.map(MapMode.READ_WRITE, regionOffset(region), regionBytes, into);
        } catch (IOException e) {
            throw new VirtioException("%s cannot be mapped: %s".formatted(name, e), e);
        }
    }

    /** Runs something that no other process, and no other user of this class, runs meanwhile. */
    <T> T locked(Locked<T> action) throws VirtioException {
        synchronized (OPENING) {
            try (FileLock _ = lock()) {
                return action.run();
            } catch (VirtioException e) {
                throw e;
            } catch (InternalError e) {
                throw cutOff(e);
            } catch (IOException e) {
                throw new VirtioException("%s cannot be locked: %s".formatted(name, e), e);
            }
        }
    }

    private FileLock lock() throws IOException {
        long end = System.nanoTime() + LOCK_MILLIS * 1_000_000;
        while (true) {
            try {
                FileLock lock = channel.tryLock();
                if (lock != null) {
                    return lock;
                }
            } catch (OverlappingFileLockException e) {
                // Another version of this bundle in the same container: for a moment as well.
            }
            if (System.nanoTime() - end > 0) {
                throw new VirtioException(
                        "%s is locked by another process for more than %d ms"
                                .formatted(name, LOCK_MILLIS));
            }
            LockSupport.parkNanos(1_000_000);
        }
    }

    int get(int offset) {
        return (int) INT_AT.getAcquire(registers, (long) offset);
    }

    void set(int offset, int value) {
        INT_AT.setRelease(registers, (long) offset, value);
    }

    long getLong(int offset) {
        return (long) LONG_AT.getAcquire(registers, (long) offset);
    }

    void setLong(int offset, long value) {
        LONG_AT.setRelease(registers, (long) offset, value);
    }

    /** Copies registers out; the length is the array's. */
    void read(int offset, byte[] into) {
        MemorySegment.copy(registers, offset, MemorySegment.ofArray(into), 0, into.length);
    }

    void write(int offset, byte[] from) {
        MemorySegment.copy(MemorySegment.ofArray(from), 0, registers, offset, from.length);
    }

    Owner owner(int offset) {
        return new Owner(getLong(offset), getLong(offset + 8));
    }

    /** The id last: what is seen half written has the id of nobody. */
    void setOwner(int offset, Owner owner) {
        setLong(offset, 0);
        setLong(offset + 8, owner.start());
        setLong(offset, owner.pid());
    }

    /** Removes the file's name; who has it open keeps it. */
    void delete() {
        delete(path);
    }

    private static void delete(Path path) {
        try {
            Files.deleteIfExists(path);
        } catch (IOException e) {
            System.getLogger(ShmFile.class.getPackageName())
                    .log(System.Logger.Level.WARNING, "{0} is left behind: {1}", path, e);
        }
    }

    /** Closes the file and unmaps its registers; regions that were mapped stay. */
    @Override
    public void close() {
        synchronized (OPENING) {
            if (arena.scope().isAlive()) {
                arena.close();
                try {
                    channel.close();
                } catch (IOException e) {
                    // Nothing was buffered: what was written is in the mapped memory.
                }
            }
        }
    }
}
