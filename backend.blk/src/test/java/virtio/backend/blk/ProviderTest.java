package virtio.backend.blk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockRequest;

import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

class ProviderTest {
    @TempDir Path dir;

    private static long capacitySectors(Backend backend) {
        byte[] bytes = new byte[8];
        backend.readConfig(BlockConfig.CAPACITY_SECTORS, bytes);
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong();
    }

    private static String id(Backend backend) throws Exception {
        MemorySegment id = Arena.ofAuto().allocate(BlockRequest.ID_BYTES);
        new FakeQueue(backend, 0).request(BlockRequest.GET_ID, 0, List.of(), List.of(id));
        return new String(id.toArray(ValueLayout.JAVA_BYTE)).trim();
    }

    private static String refused(BackendProvider provider, String spec) {
        return assertThrows(VirtioException.class, () -> provider.open(spec)).getMessage();
    }

    @ParameterizedTest
    @CsvSource({"64MiB,131072", "512KiB,1024", "1GiB,2097152", "1TiB,2147483648", "1536,3"})
    void sizesOfRamDisks(String size, long sectors) throws Exception {
        try (Backend backend = new RamProvider().open(size)) {
            assertEquals(sectors, capacitySectors(backend));
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "1000|size of 1000 bytes is not a multiple of the block size 512",
                "0|size of 0 bytes is not a multiple of the block size 512 from 512",
                "2TiB|size of 2199023255552 bytes",
                "''|size '' is no number",
                "64MB|size '64MB' is not a number of bytes, KiB, MiB, GiB or TiB",
                "-512|size '-512' is not a number",
                "iB|size 'iB' is not a number",
                "99999999999TiB|size '99999999999TiB' is no number up to 9223372036854775807",
                "1MiB,blocksize=1000|option blocksize=1000 is not a power of two from 512 to 65536",
                "1MiB,blocksize=131072|option blocksize=131072 is not a number from 512 to 65536",
                "1MiB,queues=0|option queues=0 is not a number from 1 to 64",
                "1MiB,queues=x|option queues=x is not a number from 1 to 64",
                "1MiB,serial=123456789012345678901|has 21 bytes, the limit is 20",
                "1MiB,size=3|option 'size' is not readonly, blocksize=N",
                "1MiB,queues|option 'queues' is not readonly, blocksize=N",
                "1MiB,readonly=1|option readonly takes no value, but has '1'",
                "1MiB,queues=1,queues=1|option queues is given twice",
                "1MiB,|option '' is not readonly"
            })
    void nonsenseIsRefusedWithValueAndLimit(String spec, String sentence) {
        String message = refused(new RamProvider(), spec);
        assertTrue(message.contains(sentence), message);
    }

    @Test
    void filesThatCannotBeServedAreRefusedByName() throws Exception {
        FileProvider provider = new FileProvider();
        assertTrue(refused(provider, dir + "/none").endsWith("/none does not exist"));
        assertTrue(refused(provider, dir.toString()).contains("is a directory; only a regular"));
        assertTrue(refused(provider, "/dev/null").contains("is a character device; only a reg"));
        Path odd = Files.write(dir.resolve("odd"), new byte[1000]);
        assertTrue(refused(provider, odd.toString()).contains("has 1000 bytes, not a multiple"));
        Path empty = Files.write(dir.resolve("empty"), new byte[0]);
        assertTrue(refused(provider, empty.toString()).contains("has 0 bytes"));
    }

    @Test
    void unwritableFileIsRefusedAndServedReadOnly() throws Exception {
        Path image = Files.write(dir.resolve("ro.img"), new byte[4096]);
        assertTrue(image.toFile().setWritable(false));
        assumeTrue(!Files.isWritable(image), "this user may write to every file");
        assertTrue(refused(new FileProvider(), image.toString()).contains("permission denied"));
        new FileProvider().open(image + ",readonly").close();
    }

    @Test
    void serialNamesTheDisk() throws Exception {
        Path image = Files.write(dir.resolve("a.img"), new byte[4096]);
        Path link = Files.createSymbolicLink(dir.resolve("b.img"), image);
        Path other = Files.write(dir.resolve("c.img"), new byte[4096]);
        FileProvider files = new FileProvider();
        RamProvider ram = new RamProvider();
        try (Backend a = files.open(image.toString());
                Backend b = files.open(link.toString());
                Backend c = files.open(other.toString());
                Backend d = ram.open("1MiB");
                Backend e = ram.open("1MiB")) {
            assertEquals(id(a), id(b));
            assertNotEquals(id(a), id(c));
            assertNotEquals(id(d), id(e));
            assertEquals(20, id(d).length());
        }
    }

    @Test
    @Tag("DEV-BLK-019")
    void growthOfTheFileIsAnnounced() throws Exception {
        Path image = Files.write(dir.resolve("grow.img"), new byte[4096]);
        CountDownLatch announced = new CountDownLatch(1);
        try (Backend backend = new FileProvider().open(image.toString())) {
            backend.onConfigChange(announced::countDown);
            try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
                file.setLength(8192 + 100);
            }
            assertTrue(announced.await(20, TimeUnit.SECONDS));
            assertEquals(16, capacitySectors(backend));
            FakeQueue queue = new FakeQueue(backend, 0);
            assertEquals(BlockRequest.S_OK, queue.write(15, new byte[512]));
        }
    }

    @Test
    void readOfAFileThatWasCutIsAnError() throws Exception {
        Path image = Files.write(dir.resolve("cut.img"), new byte[8192]);
        try (Backend backend = new FileProvider().open(image.toString())) {
            try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
                file.setLength(4096);
            }
            FakeQueue queue = new FakeQueue(backend, 0);
            assertEquals(BlockRequest.S_IOERR, queue.read(8, new byte[4096]));
            assertEquals(BlockRequest.S_OK, queue.read(0, new byte[4096]));
        }
    }

    @Test
    void interruptedThreadServesOnAndStaysInterrupted() throws Exception {
        Path image = Files.write(dir.resolve("int.img"), new byte[8192]);
        try (Backend backend = new FileProvider().open(image.toString())) {
            FakeQueue queue = new FakeQueue(backend, 0);
            byte[] data = {1, 2, 3, 4};
            byte[] sector = java.util.Arrays.copyOf(data, 512);
            Thread.currentThread().interrupt();
            assertEquals(BlockRequest.S_OK, queue.write(3, sector));
            assertTrue(Thread.interrupted());
            byte[] read = new byte[512];
            assertEquals(BlockRequest.S_OK, queue.read(3, read));
            assertArrayEquals(sector, read);
        }
    }

    @Test
    void zeroingLeavesASparseFileSparse() throws Exception {
        Path image = dir.resolve("sparse.img");
        try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
            file.setLength(64 << 20);
        }
        try (Backend backend = new FileProvider().open(image.toString())) {
            backend.accepted(backend.offered());
            FakeQueue queue = new FakeQueue(backend, 0);
            assertEquals(
                    BlockRequest.S_OK,
                    queue.range(BlockRequest.WRITE_ZEROES, 0, (64 << 20) / 512, 0));
        }
        Process du = new ProcessBuilder("du", "-k", image.toString()).start();
        String kib = new String(du.getInputStream().readAllBytes()).split("\\s")[0];
        assumeTrue(du.waitFor() == 0, "no du to ask for the file's blocks");
        assertTrue(Long.parseLong(kib) < 1024, kib + " KiB");
    }

    @Test
    void closingGivesTheThreadBack() throws Exception {
        Path image = Files.write(dir.resolve("t.img"), new byte[4096]);
        Backend backend = new FileProvider().open(image.toString());
        String name = "virtio-size " + image.toRealPath();
        assertTrue(running(name));
        backend.close();
        backend.close();
        assertFalse(running(name));
    }

    private static boolean running(String thread) {
        return Thread.getAllStackTraces().keySet().stream()
                .anyMatch(t -> t.getName().equals(thread));
    }
}
