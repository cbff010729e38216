package virtio.backend.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;

/** Where a switch sends frames, by ports that only take notes. */
class SwitchTest {
    private static final long BROADCAST = 0xFFFF_FFFF_FFFFL;
    private static final long NOBODY = 0x0200_0000_FFFFL;
    private static final int FRAME_BYTES = 60;

    private long nanos;
    private final Switch network = new Switch(() -> nanos);
    private final List<Note> ports = new ArrayList<>();
    private final Sender sender = new Sender();

    private static final class Note implements Port {
        int frames;

        @Override
        public void deliver(Sender sender) {
            frames++;
        }
    }

    private SwitchTest ports(int count) {
        for (int i = 0; i < count; i++) {
            ports.add(new Note());
            network.join(ports.get(i));
        }
        return this;
    }

    private static long address(int number) {
        return 0x0200_0000_0000L | number;
    }

    /** Sends a frame; which ports got it. */
    private Set<Integer> send(int from, long source, long destination) {
        Frame frame = sender.frame;
        frame.length = FRAME_BYTES;
        frame.set16(0, (int) (destination >>> 32));
        frame.set32(2, (int) destination);
        frame.set16(6, (int) (source >>> 32));
        frame.set32(8, (int) source);
        int[] before = ports.stream().mapToInt(port -> port.frames).toArray();
        network.send(ports.get(from), sender);
        Set<Integer> got = new TreeSet<>();
        for (int i = 0; i < before.length; i++) {
            for (int n = before[i]; n < ports.get(i).frames; n++) {
                assertTrue(got.add(i), "port " + i + " got it twice");
            }
        }
        return got;
    }

    @Test
    void whatIsNotKnownGoesToAllOthers() {
        ports(4);
        assertEquals(Set.of(1, 2, 3), send(0, address(0), NOBODY));
        assertEquals(Set.of(0, 1, 3), send(2, address(2), BROADCAST));
        // A group's frames go to all, whoever was a source by its name.
        send(1, 0x0100_5E00_0001L, NOBODY);
        assertEquals(Set.of(1, 2, 3), send(0, address(0), 0x0100_5E00_0001L));
    }

    @Test
    void whatIsKnownGoesThereAlone() {
        ports(4);
        send(1, address(1), BROADCAST);
        assertEquals(Set.of(1), send(0, address(0), address(1)));
        assertEquals(Set.of(0), send(1, address(1), address(0)));
        // Both behind one port: that cable has carried it already.
        send(1, address(7), BROADCAST);
        assertEquals(Set.of(), send(1, address(1), address(7)));
    }

    @Test
    void anAddressThatMovesIsFollowed() {
        ports(3);
        send(1, address(9), BROADCAST);
        assertEquals(Set.of(1), send(0, address(0), address(9)));
        send(2, address(9), BROADCAST);
        assertEquals(Set.of(2), send(0, address(0), address(9)));
    }

    @Test
    void anAddressIsForgottenWhenNothingWasHeardOfItForLong() {
        ports(3);
        send(1, address(1), BROADCAST);
        nanos += TimeUnit.SECONDS.toNanos(299);
        assertEquals(Set.of(1), send(0, address(0), address(1)));
        nanos += TimeUnit.SECONDS.toNanos(1);
        assertEquals(Set.of(1, 2), send(0, address(0), address(1)), "being sent to is no sign");
        send(1, address(1), BROADCAST);
        nanos += TimeUnit.SECONDS.toNanos(200);
        send(1, address(1), BROADCAST);
        nanos += TimeUnit.SECONDS.toNanos(200);
        assertEquals(Set.of(1), send(0, address(0), address(1)), "heard of again meanwhile");
    }

    @Test
    void aPortThatLeavesIsForgottenAndNotLearnedFromAnyMore() {
        ports(4);
        send(1, address(1), BROADCAST);
        send(2, address(2), BROADCAST);
        network.leave(ports.get(1));
        assertEquals(Set.of(2, 3), send(0, address(0), address(1)));
        assertEquals(Set.of(2), send(0, address(0), address(2)), "the others are still known");
        // A thread of its own may be in the middle of a burst.
        send(1, address(1), NOBODY);
        assertEquals(Set.of(2, 3), send(0, address(0), address(1)));
        for (Note port : ports) {
            network.leave(port);
        }
        assertTrue(network.isEmpty());
    }

    @Test
    void aHundredPortsReachEachOther() {
        ports(100);
        for (int i = 0; i < 100; i++) {
            assertEquals(99, send(i, address(i), BROADCAST).size());
        }
        for (int i = 0; i < 100; i++) {
            for (int k = 0; k < 100; k++) {
                assertEquals(i == k ? Set.of() : Set.of(k), send(i, address(i), address(k)));
            }
        }
    }

    @Test
    void madeUpAddressesPushTheOldestOutAndNoMoreThanThat() {
        ports(3);
        for (int i = 0; i < 5000; i++) {
            nanos++;
            send(1, address(i), NOBODY);
        }
        assertEquals(Set.of(1), send(0, address(9999), address(4999)));
        assertEquals(Set.of(1), send(0, address(9999), address(4000)));
        assertEquals(Set.of(1, 2), send(0, address(9999), address(0)));
        assertFalse(network.isEmpty());
    }
}
