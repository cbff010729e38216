package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CyclicBarrier;

@ExtendWith(Leaks.class)
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@SuppressWarnings("try") // Closing early is what is tested.
class FileDescriptorTest {
    private static final int FIONREAD = 0x541B;
    private static final int F_GETFD = 1;

    @TempDir Path folder;

    @Test
    void errorNamesCallPathAndErrno() {
        Path path = folder.resolve("absent");
        LinuxException e =
                assertThrows(
                        LinuxException.class,
                        () -> FileDescriptor.open(path, FileDescriptor.O_RDWR));
        assertEquals("open " + path + ": no such file or directory (ENOENT)", e.getMessage());
        assertEquals("open", e.call());
        assertEquals(Errno.ENOENT, e.errno());
    }

    @Test
    void readsAndWritesAtAnOffset() throws Exception {
        Path path = Files.writeString(folder.resolve("f"), "0123456789");
        try (Arena arena = Arena.ofConfined();
                FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
            assertEquals(10, file.sizeBytes());
            assertEquals(3, file.pwrite(arena.allocateFrom("abc").asSlice(0, 3), 4));
            assertEquals("0123abc789", Files.readString(path));
            MemorySegment into = arena.allocate(8);
            assertEquals(6, file.pread(into, 4));
            assertEquals("abc789", into.getString(0));
            assertEquals(0, file.pread(into, 10));
            assertEquals(8, file.read(into));
            assertEquals(2, file.read(into));
        }
    }

    @Test
    void lockedBytesAreForOneOpenFile() throws Exception {
        Path path = Files.writeString(folder.resolve("f"), "x");
        try (FileDescriptor one = FileDescriptor.open(path, FileDescriptor.O_RDWR);
                FileDescriptor other = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
            one.lock(0x200, 0x200);
            other.lock(0x400, 0x200);
            LinuxException e = assertThrows(LinuxException.class, () -> other.lock(0x3ff, 1));
            assertEquals(Errno.EAGAIN, e.errno());
            one.close();
            other.lock(0x3ff, 1);
        }
    }

    @Test
    void heapMemoryIsRefused() throws Exception {
        Path path = Files.writeString(folder.resolve("f"), "x");
        try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR)) {
            MemorySegment heap = MemorySegment.ofArray(new byte[8]);
            assertThrows(IllegalArgumentException.class, () -> file.read(heap));
        }
    }

    @Test
    void ioctlTakesNumbersAndStructures() throws Exception {
        try (Arena arena = Arena.ofConfined()) {
            List<UnixSocket> pair = UnixSocket.pair();
            try (UnixSocket one = pair.get(0);
                    UnixSocket other = pair.get(1)) {
                one.send(arena.allocate(11), 1000);
                MemorySegment waiting = arena.allocate(ValueLayout.JAVA_INT);
                assertEquals(0, other.file().ioctl(FIONREAD, waiting));
                assertEquals(11, waiting.get(ValueLayout.JAVA_INT, 0));
                assertEquals(0, other.file().ioctl(FIONREAD, waiting.address()));
                LinuxException e =
                        assertThrows(LinuxException.class, () -> other.file().ioctl(0x80017C41, 0));
                assertEquals(Errno.ENOTTY, e.errno());
                assertTrue(e.getMessage().startsWith("ioctl 0x80017c41 unix pair: "));
            }
        }
    }

    @Test
    void dupIsTheSameFileAndItsOwnDescriptor() throws Exception {
        try (EventFd event = EventFd.create();
                FileDescriptor dup = event.file().dup()) {
            assertNotEquals(event.file().fd(), dup.fd());
            assertEquals(1, LibC.fcntl(dup.fd(), F_GETFD, 0), "close-on-exec");
            event.signal();
            event.close();
            assertEquals(FileDescriptor.IN, dup.poll(FileDescriptor.IN, 0));
        }
    }

    @Test
    void pollKeepsItsTime() throws Exception {
        try (EventFd event = EventFd.create()) {
            long start = System.nanoTime();
            assertEquals(0, event.file().poll(FileDescriptor.IN, 20));
            assertTrue(System.nanoTime() - start >= 20_000_000);
            assertEquals(
                    FileDescriptor.OUT,
                    event.file().poll(FileDescriptor.IN | FileDescriptor.OUT, -1));
        }
    }

    @Test
    void callsAfterCloseSayBadDescriptor() throws Exception {
        FileDescriptor file = FileDescriptor.open(Path.of("/dev/null"), FileDescriptor.O_RDWR);
        file.close();
        file.close();
        assertFalse(file.isOpen());
        try (Arena arena = Arena.ofConfined()) {
            LinuxException e =
                    assertThrows(LinuxException.class, () -> file.read(arena.allocate(1)));
            assertEquals("read /dev/null: bad file descriptor (EBADF)", e.getMessage());
        }
        assertThrows(IllegalStateException.class, file::fd);
        assertThrows(LinuxException.class, file::dup);
    }

    @Test
    void closeFromManyThreadsIsOneClose() throws Exception {
        for (int round = 0; round < 200; round++) {
            FileDescriptor file = FileDescriptor.open(Path.of("/dev/null"), FileDescriptor.O_RDWR);
            CyclicBarrier barrier = new CyclicBarrier(4);
            List<Call<Void>> calls = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                calls.add(
                        new Call<>(
                                () -> {
                                    barrier.await();
                                    file.close();
                                    return null;
                                }));
            }
            for (Call<Void> call : calls) {
                call.get();
            }
            assertEquals(0, FileDescriptor.live());
        }
    }

    @Test
    void numberIsNotReusedWhileACallIsUnderWay() throws Exception {
        List<UnixSocket> pair = UnixSocket.pair();
        try (Arena arena = Arena.ofShared();
                UnixSocket one = pair.get(0);
                UnixSocket other = pair.get(1)) {
            FileDescriptor file = other.file();
            int number = file.fd();
            MemorySegment into = arena.allocate(1);
            Call<Long> reading = new Call<>(() -> file.read(into)).blocked();
            file.close();
            try (EventFd next = EventFd.create()) {
                assertNotEquals(number, next.file().fd());
                assertEquals(3, FileDescriptor.live());
                one.send(arena.allocateFrom(ValueLayout.JAVA_BYTE, (byte) 7), 1000);
                assertEquals(1, reading.get());
                assertEquals(2, FileDescriptor.live());
            }
        }
    }

    @Test
    void aNegativeNumberIsRefused() {
        assertThrows(IllegalArgumentException.class, () -> FileDescriptor.of(-1, "nothing"));
    }
}
