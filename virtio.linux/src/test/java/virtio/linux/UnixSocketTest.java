package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.io.EOFException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

@ExtendWith(Leaks.class)
@Timeout(value = 20, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@SuppressWarnings("try") // Closing early is what is tested.
class UnixSocketTest {
    private static final int F_GETFD = 1;

    private final Arena arena = Arena.ofShared();
    private final List<FileDescriptor> came = new ArrayList<>();
    private UnixSocket here;
    private UnixSocket there;

    @BeforeEach
    void connect() throws Exception {
        List<UnixSocket> pair = UnixSocket.pair();
        here = pair.get(0);
        there = pair.get(1);
    }

    @AfterEach
    void close() {
        came.forEach(FileDescriptor::close);
        here.close();
        there.close();
        arena.close();
    }

    private static EventFd[] events(int count) throws Exception {
        EventFd[] events = new EventFd[count];
        for (int i = 0; i < count; i++) {
            events[i] = EventFd.create();
        }
        return events;
    }

    private static FileDescriptor[] files(EventFd[] events) {
        return Arrays.stream(events).map(EventFd::file).toArray(FileDescriptor[]::new);
    }

    private MemorySegment bytes(int length) {
        MemorySegment segment = arena.allocate(length);
        for (int i = 0; i < length; i++) {
            segment.set(java.lang.foreign.ValueLayout.JAVA_BYTE, i, (byte) (i * 7));
        }
        return segment;
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 8, 32})
    void descriptorsArriveInOrderAndWork(int count) throws Exception {
        EventFd[] events = events(count);
        here.send(bytes(12), 1000, files(events));
        for (int i = 0; i < count; i++) {
            for (int n = 0; n <= i; n++) {
                events[i].signal();
            }
            events[i].close();
        }
        MemorySegment into = arena.allocate(12);
        assertTrue(there.receive(into, came, 1000));
        assertEquals(-1, into.mismatch(bytes(12)));
        assertEquals(count, came.size());
        for (int i = 0; i < count; i++) {
            assertEquals(1, LibC.fcntl(came.get(i).fd(), F_GETFD, 0), "close-on-exec");
            assertEquals(i + 1, EventFd.of(came.get(i)).drain());
        }
    }

    @Test
    void sharedMemoryCrosses() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 2L * Memory.PAGE_BYTES)) {
            here.send(bytes(1), 1000, memory.file());
            assertTrue(there.receive(arena.allocate(1), came, 1000));
            long page = Memory.PAGE_BYTES;
            try (Mapping theirs = Mapping.map(came.get(0), page, page, true)) {
                theirs.segment().set(JAVA_INT, 8, 42);
                assertEquals(42, memory.segment().get(JAVA_INT, page + 8));
            }
        }
    }

    @Test
    void sendingTooManyDescriptorsIsRefused() throws Exception {
        EventFd[] events = events(33);
        try {
            assertThrows(
                    IllegalArgumentException.class, () -> here.send(bytes(1), 0, files(events)));
            assertThrows(
                    IllegalArgumentException.class,
                    () -> here.send(arena.allocate(0), 0, events[0].file()));
        } finally {
            Arrays.stream(events).forEach(EventFd::close);
        }
    }

    @Test
    void moreDescriptorsThanFitAreAnErrorAndAllClosed() throws Exception {
        EventFd[] events = events(1);
        try {
            sendRaw(events[0].file().fd(), 33);
            LinuxException e =
                    assertThrows(
                            LinuxException.class,
                            () -> there.receive(arena.allocate(1), came, 1000));
            assertEquals(Errno.EMSGSIZE, e.errno());
            assertTrue(e.getMessage().contains("32"), e.getMessage());
            assertEquals(List.of(), came);
            assertEquals(3, FileDescriptor.live());
        } finally {
            events[0].close();
        }
    }

    /** One byte, and a descriptor many times over. */
    private void sendRaw(int fd, int count) {
        long length = 16 + 4L * count;
        MemorySegment control = arena.allocate(length + 7 & ~7, 8);
        control.set(JAVA_LONG, 0, length);
        control.set(JAVA_INT, 8, LibSocket.SOL_SOCKET);
        control.set(JAVA_INT, 12, LibSocket.SCM_RIGHTS);
        for (int i = 0; i < count; i++) {
            control.set(JAVA_INT, 16 + 4L * i, fd);
        }
        MemorySegment iovec = arena.allocate(16, 8);
        iovec.set(JAVA_LONG, 0, arena.allocate(1).address());
        iovec.set(JAVA_LONG, 8, 1);
        MemorySegment header = arena.allocate(56, 8);
        header.set(JAVA_LONG, 16, iovec.address());
        header.set(JAVA_LONG, 24, 1);
        header.set(JAVA_LONG, 32, control.address());
        header.set(JAVA_LONG, 40, control.byteSize());
        assertEquals(1, LibSocket.sendmsg(here.file().fd(), header, 0));
    }

    @Test
    void descriptorsDrippingInAreCountedTogether() throws Exception {
        EventFd[] events = events(32);
        try {
            here.send(bytes(1), 1000, files(events));
            here.send(bytes(1), 1000, events[0].file());
            assertThrows(LinuxException.class, () -> there.receive(arena.allocate(2), came, 1000));
            assertEquals(34, FileDescriptor.live());
        } finally {
            Arrays.stream(events).forEach(EventFd::close);
        }
    }

    @Test
    void aMessageInPiecesIsOneMessage() throws Exception {
        MemorySegment into = arena.allocate(12);
        Call<Boolean> receiving = new Call<>(() -> there.receive(into, came, -1)).blocked();
        here.send(bytes(12).asSlice(0, 5), 1000);
        assertFalse(receiving.blocked().isDone());
        here.send(bytes(12).asSlice(5), 1000);
        assertTrue(receiving.get());
        assertEquals(-1, into.mismatch(bytes(12)));
    }

    @Test
    void whatFollowsAMessageStaysForTheNext() throws Exception {
        here.send(bytes(20), 1000);
        MemorySegment into = arena.allocate(12);
        assertTrue(there.receive(into, came, 0));
        assertTrue(there.receive(into.asSlice(0, 8), came, 0));
        assertEquals(-1, into.asSlice(0, 8).mismatch(bytes(20).asSlice(12)));
    }

    @Test
    void peerThatClosesBetweenMessagesIsTheEnd() throws Exception {
        here.send(bytes(4), 1000);
        here.close();
        assertTrue(there.receive(arena.allocate(4), came, -1));
        assertFalse(there.receive(arena.allocate(4), came, -1));
    }

    @Test
    void peerThatClosesWhileWeWaitEndsTheWait() throws Exception {
        Call<Boolean> waiting =
                new Call<>(() -> there.receive(arena.allocate(1), came, -1)).blocked();
        here.close();
        assertFalse(waiting.get());
    }

    @Test
    void peerThatClosesWithinAMessageIsAnErrorAndItsDescriptorsAreClosed() throws Exception {
        EventFd[] events = events(3);
        here.send(bytes(5), 1000, files(events));
        here.close();
        Arrays.stream(events).forEach(EventFd::close);
        EOFException e =
                assertThrows(
                        EOFException.class, () -> there.receive(arena.allocate(12), came, 1000));
        assertEquals("recvmsg unix pair: peer has closed after 5 of 12 bytes", e.getMessage());
        assertEquals(List.of(), came);
        assertEquals(1, FileDescriptor.live());
    }

    @Test
    void receiveKeepsItsTime() throws Exception {
        EventFd[] events = events(1);
        here.send(bytes(5), 1000, events[0].file());
        events[0].close();
        long start = System.nanoTime();
        SocketTimeoutException e =
                assertThrows(
                        SocketTimeoutException.class,
                        () -> there.receive(arena.allocate(12), came, 30));
        assertTrue(System.nanoTime() - start >= 30_000_000);
        assertEquals("recvmsg unix pair: 5 of 12 bytes in 30 ms", e.getMessage());
        assertEquals(2, FileDescriptor.live());
    }

    @Test
    void aSteadyDripDoesNotProlongTheTime() throws Exception {
        Call<Void> dripping =
                new Call<>(
                        () -> {
                            try {
                                while (true) {
                                    here.send(bytes(1), 1000);
                                    Thread.sleep(1);
                                }
                            } catch (LinuxException e) {
                                return null;
                            }
                        });
        long start = System.nanoTime();
        assertThrows(
                SocketTimeoutException.class,
                () -> there.receive(arena.allocate(1 << 20), came, 50));
        assertTrue(System.nanoTime() - start < 5_000_000_000L);
        there.close();
        dripping.get();
    }

    @Test
    void sendKeepsItsTimeWhenThePeerDoesNotRead() throws Exception {
        MemorySegment much = arena.allocate(8 << 20);
        SocketTimeoutException e =
                assertThrows(SocketTimeoutException.class, () -> here.send(much, 30));
        assertTrue(e.getMessage().contains(" of " + (8 << 20) + " bytes in 30 ms"));
    }

    @Test
    void whatIsLargerThanTheSocketsBufferGoesThrough() throws Exception {
        MemorySegment much = bytes(4 << 20);
        MemorySegment into = arena.allocate(much.byteSize());
        EventFd[] events = events(1);
        Call<Void> sending =
                new Call<>(
                        () -> {
                            here.send(much, 10_000, files(events));
                            return null;
                        });
        assertTrue(there.receive(into, came, 10_000));
        sending.get();
        events[0].close();
        assertEquals(-1, into.mismatch(much));
        assertEquals(1, came.size(), "once, not with every piece");
    }

    @Test
    void sendingToWhoHasClosedIsAnError() throws Exception {
        there.close();
        LinuxException e = assertThrows(LinuxException.class, () -> here.send(bytes(1), 1000));
        assertEquals("sendmsg unix pair: peer has closed (EPIPE)", e.getMessage());
    }

    @Test
    void anEndThatIsGivenAwayOutlivesOurClose() throws Exception {
        List<UnixSocket> back = UnixSocket.pair();
        try (UnixSocket ours = back.get(0)) {
            try (UnixSocket theirs = back.get(1)) {
                here.send(bytes(1), 1000, theirs.file());
            }
            assertTrue(there.receive(arena.allocate(1), came, 1000));
            UnixSocket given = new UnixSocket(came.get(0));
            given.send(bytes(4), 1000);
            assertTrue(ours.receive(arena.allocate(4), new ArrayList<>(), 1000));
        }
    }

    @Test
    void closeByAnotherThreadEndsReceive() throws Exception {
        Call<Boolean> waiting =
                new Call<>(() -> there.receive(arena.allocate(1), came, -1)).blocked();
        there.close();
        there.close();
        LinuxException e = assertThrows(LinuxException.class, waiting::get);
        assertEquals(Errno.EBADF, e.errno());
    }

    @Test
    void closeByAnotherThreadEndsSend() throws Exception {
        Call<Void> waiting =
                new Call<Void>(
                                () -> {
                                    here.send(arena.allocate(8 << 20), -1);
                                    return null;
                                })
                        .blocked();
        here.close();
        LinuxException e = assertThrows(LinuxException.class, waiting::get);
        assertEquals(Errno.EBADF, e.errno());
    }

    @Test
    void aDescriptorClosedBeforeItIsSentIsAnError() throws Exception {
        EventFd[] events = events(2);
        events[1].close();
        assertThrows(LinuxException.class, () -> here.send(bytes(1), 1000, files(events)));
        int number = events[0].file().fd();
        events[0].close();
        try (EventFd next = EventFd.create()) {
            assertEquals(number, next.file().fd(), "the first was let go of");
        }
        assertNotEquals(0, there.file().fd());
    }

    @Test
    void heapMemoryIsRefused() {
        MemorySegment heap = MemorySegment.ofArray(new byte[4]);
        assertThrows(IllegalArgumentException.class, () -> here.send(heap, 0));
        assertThrows(IllegalArgumentException.class, () -> there.receive(heap, came, 0));
    }
}
