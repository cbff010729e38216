package virtio.ring.queue;

import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import virtio.linux.FileDescriptor;
import virtio.linux.Mapping;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Path;
import java.util.function.LongConsumer;

/** A peer can cut off the file behind shared memory: that must be an error, not the JVM's end. */
@Tag("unchecked")
class CutOffMemoryTest {
    @TempDir Path folder;

    @Test
    void everyAccessThrows() throws IOException {
        Path path = folder.resolve("memory");
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            file.setLength(4096);
            try (FileDescriptor opened = FileDescriptor.open(path, FileDescriptor.O_RDWR);
                    Mapping mapping = Mapping.map(opened, 0, 4096, true)) {
                file.setLength(0);
                long address = mapping.segment().address();
                LongConsumer[] accesses = {
                    RingMemory::get16,
                    RingMemory::get64,
                    RingMemory::getAcquire16,
                    RingMemory::getOpaque16,
                    RingMemory::getOpaque32,
                    RingMemory::getAcquire64,
                    at -> RingMemory.set16(at, 1),
                    at -> RingMemory.set64(at, 1),
                    at -> RingMemory.setRelease16(at, 1),
                    at -> RingMemory.setOpaque16(at, 1),
                    at -> RingMemory.setOpaque32(at, 1),
                    at -> RingMemory.setRelease64(at, 1),
                };
                for (LongConsumer access : accesses) {
                    assertThrows(InternalError.class, () -> access.accept(address));
                }
            }
        }
    }
}
