package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;

import virtio.api.map.Direction;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/** That the checked run sees what it is for; runs in that one only. */
@Tag("checked")
class LiveMemoryTest {
    private static final List<String> KINDS = Mapped.KINDS;

    @Test
    void accessesAreChecked() {
        assertTrue(RingMemory.CHECKED, "without -Dvirtio.ring.checked=true");
    }

    @ParameterizedTest
    @FieldSource("KINDS")
    void bufferMayBeAccessedWhileItIsMapped(String kind) {
        try (Mapped mapped = Mapped.of(kind);
                Arena arena = Arena.ofConfined()) {
            MemorySegment buffer = arena.allocate(64, 64);
            long handle = mapped.mapping().map(buffer, 8, 16, Direction.TO_DEVICE);
            long address = mapped.memory().translate(handle, 16, false);
            RingMemory.get64(address);
            RingMemory.get64(address + 8);
            refused("8 bytes read", () -> RingMemory.get64(address + 9));
            refused("2 bytes read", () -> RingMemory.get16(address - 1));
            refused("2 bytes written", () -> RingMemory.set16(address, 0));
            refused("17 bytes read", () -> RingMemory.slice(address, 17));
            mapped.mapping().unmap(handle, 16, Direction.TO_DEVICE);
            refused("1 bytes read", () -> RingMemory.get8(address));
        }
    }

    @Test
    void bufferThatIsMappedTwiceIsMappedUntilTheSecondIsUnmapped() {
        try (Mapped mapped = Mapped.identity();
                Arena arena = Arena.ofConfined()) {
            MemorySegment buffer = arena.allocate(16, 16);
            long out = mapped.mapping().map(buffer, 0, 16, Direction.TO_DEVICE);
            long in = mapped.mapping().map(buffer, 0, 16, Direction.FROM_DEVICE);
            RingMemory.set16(buffer.address(), 1);
            mapped.mapping().unmap(in, 16, Direction.FROM_DEVICE);
            refused("2 bytes written", () -> RingMemory.set16(buffer.address(), 2));
            assertEquals(1, RingMemory.get16(buffer.address()));
            mapped.mapping().unmap(out, 16, Direction.TO_DEVICE);
            refused("2 bytes read", () -> RingMemory.get16(buffer.address()));
        }
    }

    private static void refused(String access, Runnable accessing) {
        String message = assertThrows(AssertionError.class, accessing::run).getMessage();
        assertTrue(message.startsWith(access), message);
    }
}
