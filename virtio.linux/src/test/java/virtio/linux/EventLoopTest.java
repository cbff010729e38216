package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

@ExtendWith(Leaks.class)
@Timeout(value = 20, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@SuppressWarnings("try") // Closing early is what is tested.
class EventLoopTest {
    private final BlockingQueue<Object> seen = new ArrayBlockingQueue<>(100);

    private Object next() throws InterruptedException {
        return seen.poll(10, TimeUnit.SECONDS);
    }

    private static void drain(EventFd event) {
        try {
            event.drain();
        } catch (LinuxException e) {
            throw new IllegalStateException(e);
        }
    }

    @Test
    void handlersAreCalledOnTheLoopsThread() throws Exception {
        try (EventLoop loop = EventLoop.start("test loop");
                EventFd one = EventFd.create();
                EventFd other = EventFd.create()) {
            loop.watch(
                    one.file(),
                    FileDescriptor.IN,
                    events -> {
                        drain(one);
                        seen.add(Thread.currentThread().getName() + " " + events);
                    });
            loop.watch(other.file(), FileDescriptor.IN | Epoll.EDGE, events -> seen.add("other"));
            one.signal();
            assertEquals("test loop " + FileDescriptor.IN, next());
            other.signal();
            assertEquals("other", next());
            one.signal();
            assertEquals("test loop " + FileDescriptor.IN, next());
        }
        assertTrue(seen.isEmpty());
    }

    @Test
    void closingAWatchWaitsForItsHandler() throws Exception {
        CountDownLatch inside = new CountDownLatch(1);
        CountDownLatch leave = new CountDownLatch(1);
        try (EventLoop loop = EventLoop.start("test loop");
                EventFd event = EventFd.create()) {
            EventLoop.Watch watch =
                    loop.watch(
                            event.file(),
                            FileDescriptor.IN,
                            events -> {
                                inside.countDown();
                                try {
                                    leave.await();
                                } catch (InterruptedException e) {
                                    throw new IllegalStateException(e);
                                }
                                seen.add("left");
                            });
            event.signal();
            inside.await();
            Thread closer = Thread.ofPlatform().start(watch::close);
            try {
                while (closer.getState() != Thread.State.BLOCKED) {
                    assertTrue(closer.isAlive(), "close did not wait");
                    Thread.onSpinWait();
                }
            } finally {
                leave.countDown();
            }
            closer.join();
            assertEquals("left", seen.poll());
            event.signal();
            // Another file's event has gone through the loop after this one's would have.
            try (EventFd after = EventFd.create()) {
                loop.watch(
                        after.file(), FileDescriptor.IN | Epoll.EDGE, events -> seen.add("after"));
                after.signal();
                assertEquals("after", next());
            }
            assertTrue(seen.isEmpty());
        }
    }

    @Test
    void aHandlerMayCloseItselfAndOthersAndWatchAnew() throws Exception {
        try (EventLoop loop = EventLoop.start("test loop");
                EventFd one = EventFd.create();
                EventFd other = EventFd.create()) {
            AtomicReference<EventLoop.Watch> first = new AtomicReference<>();
            first.set(
                    loop.watch(
                            one.file(),
                            FileDescriptor.IN | Epoll.EDGE,
                            events -> {
                                first.get().close();
                                try {
                                    loop.watch(
                                            other.file(),
                                            FileDescriptor.IN | Epoll.EDGE,
                                            more -> seen.add("anew"));
                                } catch (LinuxException e) {
                                    seen.add(e);
                                }
                            }));
            one.signal();
            other.signal();
            assertEquals("anew", next());
        }
    }

    @Test
    void aHandlerThatThrowsIsCalledNoMore() throws Exception {
        Thread.UncaughtExceptionHandler before = Thread.getDefaultUncaughtExceptionHandler();
        Thread.setDefaultUncaughtExceptionHandler((thread, t) -> seen.add(t));
        try (EventLoop loop = EventLoop.start("test loop");
                EventFd bad = EventFd.create();
                EventFd good = EventFd.create()) {
            RuntimeException thrown = new RuntimeException("from the handler");
            loop.watch(
                    bad.file(),
                    FileDescriptor.IN,
                    events -> {
                        throw thrown;
                    });
            bad.signal();
            assertSame(thrown, next());
            loop.watch(good.file(), FileDescriptor.IN | Epoll.EDGE, events -> seen.add("good"));
            good.signal();
            assertEquals("good", next());
            assertTrue(seen.isEmpty());
        } finally {
            Thread.setDefaultUncaughtExceptionHandler(before);
        }
    }

    @Test
    void aFileClosedBeforeItsWatchIsForgottenAllTheSame() throws Exception {
        try (EventLoop loop = EventLoop.start("test loop");
                EventFd event = EventFd.create();
                FileDescriptor heldByAPeer = event.file().dup()) {
            EventLoop.Watch watch = loop.watch(event.file(), FileDescriptor.IN, events -> {});
            event.close();
            assertEquals(2, waitedFor(), "the event and the loop's own wake-up");
            watch.close();
            watch.close();
            assertEquals(1, waitedFor(), "the loop's own wake-up");
            assertEquals(3, FileDescriptor.live(), () -> "only the loop's two and " + heldByAPeer);
        }
    }

    /** What the kernel waits for on behalf of this process by epoll. */
    private static long waitedFor() throws Exception {
        long count = 0;
        try (DirectoryStream<Path> all = Files.newDirectoryStream(Path.of("/proc/self/fdinfo"))) {
            for (Path one : all) {
                try {
                    count +=
                            Files.readAllLines(one).stream()
                                    .filter(line -> line.startsWith("tfd:"))
                                    .count();
                } catch (IOException e) {
                    // The descriptor by which the folder itself is read.
                }
            }
        }
        return count;
    }

    @Test
    void closeEndsEverything() throws Exception {
        try (EventFd event = EventFd.create()) {
            EventLoop loop = EventLoop.start("test loop");
            EventLoop.Watch watch =
                    loop.watch(event.file(), FileDescriptor.IN, events -> drain(event));
            loop.close();
            loop.close();
            assertEquals(1, FileDescriptor.live());
            assertThrows(
                    LinuxException.class,
                    () -> loop.watch(event.file(), FileDescriptor.IN, events -> {}));
            watch.close();
            assertTrue(
                    Thread.getAllStackTraces().keySet().stream()
                            .noneMatch(t -> t.getName().equals("test loop")));
        }
    }

    @Test
    void aHandlerMayCloseTheLoop() throws Exception {
        try (EventFd event = EventFd.create()) {
            EventLoop loop = EventLoop.start("test loop");
            loop.watch(
                    event.file(),
                    FileDescriptor.IN,
                    events -> {
                        loop.close();
                        seen.add("closed");
                    });
            event.signal();
            assertEquals("closed", next());
            loop.close();
            assertFalse(
                    Thread.getAllStackTraces().keySet().stream()
                            .anyMatch(t -> t.getName().equals("test loop")));
        }
    }
}
