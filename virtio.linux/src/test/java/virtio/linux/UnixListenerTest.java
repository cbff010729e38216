package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

@ExtendWith(Leaks.class)
@Timeout(value = 20, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@SuppressWarnings("try") // Closing early is what is tested.
class UnixListenerTest {
    @TempDir Path folder;
    private Path path;

    @BeforeEach
    void choosePath() {
        path = folder.resolve("s");
    }

    @Test
    void connectsAndAccepts() throws Exception {
        try (Arena arena = Arena.ofConfined();
                UnixListener listener = UnixListener.listen(path);
                UnixSocket client = UnixSocket.connect(path, 1000);
                UnixSocket server = listener.accept(1000)) {
            client.send(arena.allocateFrom("hello"), 1000);
            MemorySegment into = arena.allocate(6);
            assertTrue(server.receive(into, new ArrayList<>(), 1000));
            assertEquals("hello", into.getString(0));
        }
        assertFalse(Files.exists(path), "removed by close");
    }

    @Test
    void acceptKeepsItsTime() throws Exception {
        try (UnixListener listener = UnixListener.listen(path)) {
            long start = System.nanoTime();
            SocketTimeoutException e =
                    assertThrows(SocketTimeoutException.class, () -> listener.accept(20));
            assertTrue(System.nanoTime() - start >= 20_000_000);
            assertEquals("accept unix:" + path + ": nobody in 20 ms", e.getMessage());
            assertThrows(SocketTimeoutException.class, () -> listener.accept(0));
        }
    }

    @Test
    void closeByAnotherThreadEndsAccept() throws Exception {
        UnixListener listener = UnixListener.listen(path);
        Call<UnixSocket> waiting = new Call<>(() -> listener.accept(-1)).blocked();
        listener.close();
        listener.close();
        LinuxException e = assertThrows(LinuxException.class, waiting::get);
        assertEquals("accept unix:" + path + ": bad file descriptor (EBADF)", e.getMessage());
        assertThrows(LinuxException.class, () -> listener.accept(0));
    }

    @Test
    void aSocketThatNobodyAnswersOnIsReplaced() throws Exception {
        leaveStaleSocket();
        try (UnixListener listener = UnixListener.listen(path);
                UnixSocket client = UnixSocket.connect(path, 1000)) {
            listener.accept(1000).close();
        }
    }

    private void leaveStaleSocket() throws Exception {
        Path elsewhere = folder.resolve("elsewhere");
        try (UnixListener dead = UnixListener.listen(path)) {
            Files.move(path, elsewhere);
        }
        Files.move(elsewhere, path);
    }

    @Test
    void aSocketThatSomebodyAnswersOnIsLeftAlone() throws Exception {
        try (UnixListener listener = UnixListener.listen(path)) {
            LinuxException e = assertThrows(LinuxException.class, () -> UnixListener.listen(path));
            assertEquals(
                    "bind " + path + " (somebody answers there): address in use (EADDRINUSE)",
                    e.getMessage());
            UnixSocket.connect(path, 1000).close();
        }
    }

    @Test
    void aSocketWithAFullQueueIsLeftAlone() throws Exception {
        try (UnixListener listener = UnixListener.listen(path)) {
            List<UnixSocket> clients = fillQueue();
            try {
                LinuxException e =
                        assertThrows(LinuxException.class, () -> UnixListener.listen(path));
                assertEquals(Errno.EADDRINUSE, e.errno());
                assertTrue(Files.exists(path));
            } finally {
                clients.forEach(UnixSocket::close);
            }
        }
    }

    private List<UnixSocket> fillQueue() throws Exception {
        List<UnixSocket> clients = new ArrayList<>();
        try {
            while (clients.size() < 10_000) {
                clients.add(UnixSocket.connect(path, 5));
            }
        } catch (SocketTimeoutException e) {
            assertEquals("connect unix:" + path + ": queue full for 5 ms", e.getMessage());
            return clients;
        }
        throw new AssertionError("the queue has no end");
    }

    @Test
    void aFileThatIsNoSocketIsLeftAlone() throws Exception {
        Files.writeString(path, "precious");
        LinuxException e = assertThrows(LinuxException.class, () -> UnixListener.listen(path));
        assertEquals("bind " + path + " (no socket): address in use (EADDRINUSE)", e.getMessage());
        assertEquals("precious", Files.readString(path));
    }

    @Test
    void aLinkIsNotFollowed() throws Exception {
        Path target = folder.resolve("target");
        path = folder.resolve("target");
        leaveStaleSocket();
        path = Files.createSymbolicLink(folder.resolve("link"), target);
        assertThrows(LinuxException.class, () -> UnixListener.listen(path));
        assertTrue(Files.exists(target));
    }

    @Test
    void closeLeavesTheSocketOfASuccessor() throws Exception {
        UnixListener first = UnixListener.listen(path);
        Files.delete(path);
        try (UnixListener second = UnixListener.listen(path)) {
            first.close();
            UnixSocket.connect(path, 1000).close();
        }
    }

    @Test
    void errorsNameThePath() throws Exception {
        LinuxException absent =
                assertThrows(LinuxException.class, () -> UnixSocket.connect(path, 1000));
        assertEquals(
                "connect unix:" + path + ": no such file or directory (ENOENT)",
                absent.getMessage());
        leaveStaleSocket();
        LinuxException refused =
                assertThrows(LinuxException.class, () -> UnixSocket.connect(path, 1000));
        assertEquals(
                "connect unix:" + path + ": connection refused (ECONNREFUSED)",
                refused.getMessage());
        Path nowhere = folder.resolve("no/such");
        LinuxException bind =
                assertThrows(LinuxException.class, () -> UnixListener.listen(nowhere));
        assertEquals("bind " + nowhere + ": no such file or directory (ENOENT)", bind.getMessage());
    }

    @Test
    void pathThatIsTooLongIsRefusedWithItsLength() {
        Path tooLong = folder.resolve("x".repeat(120));
        LinuxException e = assertThrows(LinuxException.class, () -> UnixListener.listen(tooLong));
        assertEquals(Errno.ENAMETOOLONG, e.errno());
        int bytes = tooLong.toString().length();
        assertTrue(e.getMessage().contains(bytes + " bytes where 107 fit"), e.getMessage());
        assertThrows(LinuxException.class, () -> UnixSocket.connect(tooLong, 0));
    }
}
