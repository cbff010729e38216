package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

@ExtendWith(Leaks.class)
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@SuppressWarnings("try") // Closing early is what is tested.
class EpollTest {
    @TempDir Path folder;

    @Test
    void aSignalOfAnotherThreadEndsTheWait() throws Exception {
        try (Epoll epoll = Epoll.create(4);
                EventFd event = EventFd.create()) {
            epoll.add(event.file(), FileDescriptor.IN, -5);
            Call<Integer> waiting = new Call<>(() -> epoll.await(-1)).blocked();
            event.signal();
            assertEquals(1, waiting.get());
            assertEquals(-5, epoll.data(0));
            assertEquals(FileDescriptor.IN, epoll.events(0));
        }
    }

    @Test
    void everyFileIsReportedWithItsData() throws Exception {
        List<EventFd> all = new ArrayList<>();
        try (Epoll epoll = Epoll.create(3)) {
            for (int i = 0; i < 10; i++) {
                EventFd event = EventFd.create();
                all.add(event);
                epoll.add(event.file(), FileDescriptor.IN, 1L << 40 | i);
                event.signal();
            }
            Set<Long> seen = new HashSet<>();
            for (int round = 0; round < 10; round++) {
                int n = epoll.await(0);
                assertTrue(n <= 3);
                for (int i = 0; i < n; i++) {
                    assertTrue(seen.add(epoll.data(i)));
                    all.get((int) epoll.data(i)).drain();
                }
            }
            assertEquals(10, seen.size());
        } finally {
            all.forEach(EventFd::close);
        }
    }

    @Test
    void wakeUpIsReportedAsNothing() throws Exception {
        try (Epoll epoll = Epoll.create(4);
                EventFd event = EventFd.create()) {
            Call<Integer> waiting = new Call<>(() -> epoll.await(-1)).blocked();
            epoll.wakeUp();
            assertEquals(0, waiting.get());
            epoll.add(event.file(), FileDescriptor.IN, 3);
            epoll.wakeUp();
            event.signal();
            assertEquals(1, epoll.await(-1));
            assertEquals(3, epoll.data(0));
            event.drain();
            long start = System.nanoTime();
            assertEquals(0, epoll.await(20), "a wake-up is used up");
            assertTrue(System.nanoTime() - start >= 20_000_000);
        }
    }

    @Test
    void closeEndsTheWait() throws Exception {
        for (int round = 0; round < 20; round++) {
            Epoll epoll = Epoll.create(4);
            Call<Integer> waiting = new Call<>(() -> epoll.await(-1)).blocked();
            epoll.close();
            epoll.close();
            LinuxException e = assertThrows(LinuxException.class, waiting::get);
            assertEquals("epoll_wait epoll: bad file descriptor (EBADF)", e.getMessage());
            assertEquals(0, FileDescriptor.live());
            assertThrows(LinuxException.class, () -> epoll.await(0));
        }
    }

    @Test
    void edgeReportsEachSignalOnceWithoutReading() throws Exception {
        try (Epoll epoll = Epoll.create(4);
                EventFd event = EventFd.create()) {
            epoll.add(event.file(), FileDescriptor.IN | Epoll.EDGE, 1);
            for (int i = 0; i < 3; i++) {
                event.signal();
                assertEquals(1, epoll.await(0));
                assertEquals(0, epoll.await(0));
            }
        }
    }

    @Test
    void whatIsRemovedIsReportedNoMore() throws Exception {
        try (Epoll epoll = Epoll.create(4);
                EventFd event = EventFd.create()) {
            epoll.add(event.file(), FileDescriptor.IN, 1);
            event.signal();
            assertEquals(1, epoll.await(0));
            assertThrows(LinuxException.class, () -> epoll.add(event.file(), FileDescriptor.IN, 1));
            epoll.remove(event.file());
            assertEquals(0, epoll.await(0));
            LinuxException e = assertThrows(LinuxException.class, () -> epoll.remove(event.file()));
            assertEquals("epoll_ctl eventfd: no such file or directory (ENOENT)", e.getMessage());
        }
    }

    @Test
    void whatCannotBeWaitedForIsRefused() throws Exception {
        Path path = Files.writeString(folder.resolve("f"), "x");
        try (Epoll epoll = Epoll.create(1);
                FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDONLY)) {
            LinuxException e =
                    assertThrows(LinuxException.class, () -> epoll.add(file, FileDescriptor.IN, 1));
            assertEquals("epoll_ctl " + path + ": operation not permitted (EPERM)", e.getMessage());
            assertThrows(
                    IllegalArgumentException.class,
                    () -> epoll.add(file, FileDescriptor.IN, Long.MIN_VALUE));
        }
        assertThrows(IllegalArgumentException.class, () -> Epoll.create(0));
    }

    @Test
    void waitingAllocatesNothing() throws Exception {
        try (Epoll epoll = Epoll.create(4);
                EventFd event = EventFd.create()) {
            epoll.add(event.file(), FileDescriptor.IN, 1);
            Allocation.assertNone(
                    () -> {
                        event.signal();
                        epoll.wakeUp();
                        if (epoll.await(-1) != 1 || epoll.data(0) != 1) {
                            throw new AssertionError("not the one event");
                        }
                        event.drain();
                    });
        }
    }
}
