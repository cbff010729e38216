package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

@ExtendWith(Leaks.class)
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@SuppressWarnings("try") // Closing early is what is tested.
class EventFdTest {
    private static final int F_SETFL = 4;

    @Test
    void countsSignalsOfSeveralThreads() throws Exception {
        try (EventFd event = EventFd.create()) {
            List<Call<Void>> calls = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                calls.add(
                        new Call<>(
                                () -> {
                                    for (int n = 0; n < 10_000; n++) {
                                        event.signal();
                                    }
                                    return null;
                                }));
            }
            for (Call<Void> call : calls) {
                call.get();
            }
            assertEquals(40_000, event.drain());
            assertEquals(0, event.drain());
        }
    }

    @Test
    void drainDoesNotWaitEvenOnAFileThatBlocks() throws Exception {
        try (EventFd event = blocking()) {
            assertEquals(0, new Call<>(event::drain).get());
            event.signal();
            assertEquals(1, event.drain());
        }
    }

    @Test
    void aFullCounterIsSignalEnough() throws Exception {
        try (EventFd event = EventFd.create()) {
            fill(event);
            event.signal();
            assertEquals(-2, event.drain());
        }
    }

    @Test
    void closeLetsGoOfASignalThatAPeerHoldsUp() throws Exception {
        try (EventFd event = blocking();
                FileDescriptor peer = event.file().dup()) {
            fill(event);
            Call<Void> stuck =
                    new Call<Void>(
                                    () -> {
                                        event.signal();
                                        return null;
                                    })
                            .blocked();
            event.close();
            stuck.get();
            assertEquals(1, FileDescriptor.live(), () -> "only " + peer);
        }
    }

    @Test
    void aSocketTakesSignalsAsWell() throws Exception {
        List<UnixSocket> ends = UnixSocket.pair();
        try (EventFd event = EventFd.of(ends.get(0).file().dup());
                UnixSocket peer = ends.get(1)) {
            ends.get(0).close();
            AtomicInteger signals = new AtomicInteger();
            Call<Void> stuck =
                    new Call<>(
                            () -> {
                                while (true) {
                                    event.signal();
                                    signals.incrementAndGet();
                                }
                            });
            for (int before = -1; before != signals.get() || before == 0; ) {
                before = signals.get();
                Thread.sleep(50);
            }
            stuck.blocked();
            event.close();
            assertThrows(LinuxException.class, stuck::get);
            try (Arena arena = Arena.ofConfined()) {
                MemorySegment one = arena.allocate(ValueLayout.JAVA_LONG);
                peer.receive(one, new ArrayList<>(), 1000);
                assertEquals(1, one.get(ValueLayout.JAVA_LONG, 0));
            }
        }
    }

    @Test
    void closeLeavesThePeerItsEvent() throws Exception {
        EventFd event = EventFd.create();
        try (EventFd peer = EventFd.of(event.file().dup())) {
            event.signal();
            event.close();
            assertEquals(1, peer.drain());
        }
    }

    @Test
    void afterCloseItSaysBadDescriptor() throws Exception {
        EventFd event = EventFd.create();
        event.close();
        event.close();
        LinuxException e = assertThrows(LinuxException.class, event::signal);
        assertEquals("write eventfd: bad file descriptor (EBADF)", e.getMessage());
        assertThrows(LinuxException.class, event::drain);
    }

    @Test
    void allocatesNothing() throws Exception {
        try (EventFd event = EventFd.create()) {
            Allocation.assertNone(
                    () -> {
                        event.signal();
                        event.drain();
                    });
        }
    }

    private static EventFd blocking() throws Exception {
        EventFd event = EventFd.create();
        assertEquals(0, LibC.fcntl(event.file().fd(), F_SETFL, FileDescriptor.O_RDWR));
        return event;
    }

    private static void fill(EventFd event) throws Exception {
        try (Arena arena = Arena.ofConfined()) {
            event.file().write(arena.allocateFrom(ValueLayout.JAVA_LONG, -2));
        }
    }
}
