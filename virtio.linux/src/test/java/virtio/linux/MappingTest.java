package virtio.linux;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CyclicBarrier;

@ExtendWith(Leaks.class)
@SuppressWarnings("try") // Closing early is what is tested.
class MappingTest {
    private static final int PAGE = Memory.PAGE_BYTES;

    @TempDir Path folder;

    @Test
    void twoMappingsOfOneFileShareTheirBytes() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 4L * PAGE);
                Mapping second = Mapping.map(memory.file(), 2L * PAGE, PAGE, true)) {
            assertEquals(PAGE, second.segment().byteSize());
            memory.segment().set(JAVA_LONG, 2L * PAGE + 8, 0x1122334455667788L);
            assertEquals(0x1122334455667788L, second.segment().get(JAVA_LONG, 8));
            second.segment().set(JAVA_BYTE, PAGE - 1, (byte) 9);
            assertEquals(9, memory.segment().get(JAVA_BYTE, 3L * PAGE - 1));
            assertEquals(0x55667788, Memory.ALL.get(JAVA_INT, second.segment().address() + 8));
        }
    }

    @Test
    void memoryIsZeroed() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", PAGE)) {
            assertEquals(-1, memory.segment().mismatch(MemorySegment.ofArray(new byte[PAGE])));
        }
    }

    @Test
    void pagesAreShownInAnotherOrder() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 4L * PAGE);
                Mapping file = Mapping.map(memory.file(), 0, 4L * PAGE, false)) {
            for (int page = 0; page < 4; page++) {
                memory.segment().set(JAVA_INT, (long) page * PAGE, page);
            }
            int[] order = {2, 1, 3, 0};
            memory.order(order, PAGE);
            for (int place = 0; place < 4; place++) {
                assertEquals(order[place], memory.segment().get(JAVA_INT, (long) place * PAGE));
                assertEquals(place, file.segment().get(JAVA_INT, (long) place * PAGE));
            }
        }
    }

    @Test
    void nobodyCanShrinkOurMemory() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", PAGE);
                FileDescriptor given = memory.file().dup()) {
            assertEquals(-Errno.EPERM, LibC.ftruncate(given.fd(), 0));
            assertEquals(-Errno.EPERM, LibC.ftruncate(given.fd(), 2L * PAGE));
        }
    }

    @Test
    void readOnlyMappingThrowsOnStores() throws Exception {
        Path path = Files.write(folder.resolve("f"), new byte[PAGE]);
        try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDONLY);
                Mapping mapping = Mapping.map(file, 0, PAGE, false)) {
            assertThrows(
                    IllegalArgumentException.class, () -> mapping.segment().set(JAVA_INT, 0, 1));
            LinuxException e =
                    assertThrows(LinuxException.class, () -> Mapping.map(file, 0, PAGE, true));
            assertEquals(
                    "mmap %s, %d bytes at offset 0: permission denied (EACCES)"
                            .formatted(path, PAGE),
                    e.getMessage());
        }
    }

    @Test
    void aPartOutsideTheFileIsRefused() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 2L * PAGE)) {
            LinuxException e =
                    assertThrows(
                            LinuxException.class,
                            () -> Mapping.map(memory.file(), PAGE, 2L * PAGE, true));
            assertEquals(
                    "mmap memfd:test, %d bytes at offset %d, the file having %d: invalid argument (EINVAL)"
                            .formatted(2 * PAGE, PAGE, 2 * PAGE),
                    e.getMessage());
            assertThrows(LinuxException.class, () -> Mapping.map(memory.file(), 12, PAGE, true));
            assertThrows(
                    IllegalArgumentException.class, () -> Mapping.map(memory.file(), 0, 0, true));
            assertThrows(
                    IllegalArgumentException.class,
                    () -> Mapping.map(memory.file(), Long.MAX_VALUE - PAGE, 2L * PAGE, true));
            assertThrows(
                    IllegalArgumentException.class,
                    () -> Mapping.map(memory.file(), -PAGE, PAGE, true));
        }
    }

    @Test
    void outlivesItsDescriptor() throws Exception {
        Path path = Files.write(folder.resolve("f"), new byte[PAGE]);
        try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR);
                Mapping mapping = Mapping.map(file, 0, PAGE, true)) {
            file.close();
            mapping.segment().set(JAVA_BYTE, 3, (byte) 3);
            assertEquals(3, Files.readAllBytes(path)[3]);
        }
    }

    @Test
    void accessAfterCloseThrows() throws Exception {
        SharedMemory memory = SharedMemory.create("test", PAGE);
        MemorySegment segment = memory.segment();
        memory.close();
        memory.close();
        assertThrows(IllegalStateException.class, () -> segment.get(JAVA_INT, 0));
    }

    @Test
    void closeFromTwoThreadsIsOneUnmap() throws Exception {
        for (int round = 0; round < 50; round++) {
            SharedMemory memory = SharedMemory.create("test", PAGE);
            CyclicBarrier barrier = new CyclicBarrier(2);
            Call<Integer> other =
                    new Call<>(
                            () -> {
                                barrier.await();
                                memory.close();
                                return Mapping.live();
                            });
            barrier.await();
            memory.close();
            assertEquals(0, Mapping.live());
            assertEquals(0, other.get());
        }
    }

    @Test
    void memoryInASystemCallIsNotUnmapped() throws Exception {
        List<UnixSocket> pair = UnixSocket.pair();
        try (UnixSocket one = pair.get(0);
                UnixSocket other = pair.get(1)) {
            SharedMemory memory = SharedMemory.create("test", PAGE);
            Call<Long> reading = new Call<>(() -> other.file().read(memory.segment())).blocked();
            assertThrows(IllegalStateException.class, memory::close);
            assertEquals(1, Mapping.live());
            memory.segment().set(JAVA_INT, 0, 5);
            one.send(memory.segment().asSlice(0, 4), 1000);
            assertEquals(4, reading.get());
            memory.close();
        }
    }

    @Test
    void aFileThatIsShrunkBelowAMappingEndsNoProcess() throws Exception {
        Path path = Files.write(folder.resolve("f"), new byte[2 * PAGE]);
        try (FileDescriptor file = FileDescriptor.open(path, FileDescriptor.O_RDWR);
                Mapping mapping = Mapping.map(file, 0, 2L * PAGE, true)) {
            assertEquals(0, LibC.ftruncate(file.fd(), PAGE));
            MemorySegment segment = mapping.segment();
            assertThrows(InternalError.class, () -> segment.get(JAVA_INT, PAGE));
            assertThrows(
                    InternalError.class, () -> Memory.ALL.get(JAVA_INT, segment.address() + PAGE));
            byte[] heap = new byte[PAGE];
            assertThrows(
                    InternalError.class,
                    () -> MemorySegment.copy(segment, JAVA_BYTE, PAGE, heap, 0, PAGE));
            LinuxException e =
                    assertThrows(LinuxException.class, () -> file.pwrite(segment.asSlice(PAGE), 0));
            assertEquals(Errno.EFAULT, e.errno());
            assertEquals(0, segment.get(JAVA_INT, 0));
        }
    }

    @Test
    void locksItsPages() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", 16L * PAGE);
                Mapping mapping = Mapping.map(memory.file(), 0, 16L * PAGE, true)) {
            LinuxException refused = null;
            try {
                mapping.lock();
            } catch (LinuxException e) {
                refused = e;
            }
            assumeTrue(refused == null, () -> "no right to lock 16 pages");
            String locked =
                    Files.readAllLines(Path.of("/proc/self/status")).stream()
                            .filter(line -> line.startsWith("VmLck:"))
                            .findFirst()
                            .orElseThrow();
            assertFalse(locked.matches("VmLck:\\s+0 kB"), locked);
        }
    }

    @Test
    void hugePages() throws Exception {
        long huge = 2L << 20;
        List<String> free =
                Files.readAllLines(Path.of("/proc/meminfo")).stream()
                        .filter(line -> line.matches("HugePages_Free:\\s+[1-9].*"))
                        .toList();
        assumeTrue(!free.isEmpty(), "no huge page is free (/proc/sys/vm/nr_hugepages)");
        try (SharedMemory memory = SharedMemory.create("test", huge, huge)) {
            memory.segment().set(JAVA_LONG, huge - 8, 1);
            assertEquals(0, memory.segment().address() % huge);
            assertEquals(huge, memory.file().sizeBytes());
        }
    }

    @Test
    void lackingHugePagesIsAnErrorWithANumber() throws Exception {
        long huge = 2L << 20;
        long size = huge << 20;
        LinuxException e =
                assertThrows(LinuxException.class, () -> SharedMemory.create("test", size, huge));
        assertTrue(e.getMessage().contains("memfd:test"), e.getMessage());
        assertTrue(e.errno() == Errno.ENOMEM || e.errno() == Errno.ENODEV, () -> e.getMessage());
    }

    @Test
    void oddSizesAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> SharedMemory.create("test", PAGE + 1));
        assertThrows(IllegalArgumentException.class, () -> SharedMemory.create("test", 0));
        assertThrows(
                IllegalArgumentException.class, () -> SharedMemory.create("test", 12288, 12288));
        LinuxException e =
                assertThrows(
                        LinuxException.class, () -> SharedMemory.create("n".repeat(300), PAGE));
        assertEquals("memfd_create", e.call());
    }

    @Test
    void checkedMemoryHasBounds() throws Exception {
        try (SharedMemory memory = SharedMemory.create("test", PAGE)) {
            long address = memory.segment().address();
            MemorySegment checked = Memory.of(address, 16);
            assertDoesNotThrow(() -> checked.set(JAVA_LONG, 8, 3));
            assertEquals(3, memory.segment().get(JAVA_LONG, 8));
            assertThrows(IndexOutOfBoundsException.class, () -> checked.get(JAVA_LONG, 9));
            assertThrows(IllegalArgumentException.class, () -> Memory.of(0, 16));
            assertThrows(IllegalArgumentException.class, () -> Memory.of(address, -1));
            assertThrows(IllegalArgumentException.class, () -> Memory.of(address, Long.MAX_VALUE));
        }
    }
}
