package virtio.backend.blk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import static virtio.api.block.BlockRequest.S_IOERR;
import static virtio.api.block.BlockRequest.S_OK;
import static virtio.api.block.BlockRequest.S_UNSUPP;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.Chain;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;
import virtio.api.block.BlockRequest;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

class BlkBackendTest {
    private static final int BYTES = 4 << 20;
    private static final int SECTORS = BYTES / 512;

    @TempDir Path dir;

    private Backend open(String kind, String options) throws Exception {
        Backend backend;
        if (kind.equals("ram")) {
            backend = new RamProvider().open(BYTES + options);
        } else {
            Path image = dir.resolve("disk.img");
            if (!Files.exists(image)) {
                Files.write(image, new byte[BYTES]);
            }
            backend = new FileProvider().open(image + options);
        }
        backend.accepted(backend.offered());
        return backend;
    }

    private static byte[] random(long seed, int bytes) {
        byte[] data = new byte[bytes];
        new Random(seed).nextBytes(data);
        return data;
    }

    @ParameterizedTest
    @ValueSource(strings = {"ram", "file"})
    void whatRandomRequestsLeaveIsWhatAnArrayHolds(String kind) throws Exception {
        byte[] model = new byte[BYTES];
        Random random = new Random(42);
        try (Backend backend = open(kind, "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            for (int i = 0; i < 400; i++) {
                int count = 1 + random.nextInt(i % 10 == 0 ? 4096 : 16);
                int sector = random.nextInt(SECTORS - count + 1);
                int from = sector * 512;
                int to = from + count * 512;
                switch (random.nextInt(4)) {
                    case 0 -> {
                        byte[] data = random(i, count * 512);
                        assertEquals(S_OK, queue.write(sector, data));
                        System.arraycopy(data, 0, model, from, data.length);
                    }
                    case 1 -> {
                        int type =
                                random.nextBoolean()
                                        ? BlockRequest.DISCARD
                                        : BlockRequest.WRITE_ZEROES;
                        assertEquals(S_OK, queue.range(type, sector, count, 0));
                        Arrays.fill(model, from, to, (byte) 0);
                    }
                    default -> {
                        byte[] data = new byte[count * 512];
                        assertEquals(S_OK, queue.read(sector, data));
                        assertArrayEquals(Arrays.copyOfRange(model, from, to), data);
                    }
                }
            }
            assertEquals(S_OK, queue.request(BlockRequest.FLUSH, 0, List.of(), List.of()));
        }
        if (kind.equals("file")) {
            assertArrayEquals(model, Files.readAllBytes(dir.resolve("disk.img")));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"ram", "file"})
    void rangesBeyondTheDiskAreErrorsAndTouchNothing(String kind) throws Exception {
        try (Backend backend = open(kind, "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            for (long sector :
                    new long[] {
                        SECTORS, SECTORS - 1, -1, Long.MIN_VALUE, Long.MAX_VALUE, 1L << 55
                    }) {
                assertEquals(S_IOERR, queue.read(sector, random(1, 1024)), "sector " + sector);
                assertEquals(S_IOERR, queue.write(sector, random(1, 1024)), "sector " + sector);
                assertEquals(S_IOERR, queue.range(BlockRequest.DISCARD, sector, 2, 0));
                assertEquals(S_IOERR, queue.range(BlockRequest.WRITE_ZEROES, sector, 2, 0));
            }
            byte[] last = random(2, 512);
            assertEquals(S_OK, queue.read(SECTORS - 1, last));
            assertArrayEquals(new byte[512], last);
            assertEquals(S_OK, queue.read(SECTORS, new byte[0]));
        }
    }

    @Test
    void lengthsThatAreNoBlocksAreErrors() throws Exception {
        try (Backend backend = open("ram", ",blocksize=4096")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            assertEquals(S_IOERR, queue.write(0, new byte[4095]));
            assertEquals(S_IOERR, queue.read(0, new byte[512]));
            assertEquals(S_IOERR, queue.read(1, new byte[4096]));
            assertEquals(S_IOERR, queue.range(BlockRequest.DISCARD, 1, 8, 0));
            assertEquals(S_OK, queue.read(8, new byte[4096]));
        }
    }

    @Test
    void failedReadLeavesNoOldMemoryInTheBuffer() throws Exception {
        try (Backend backend = open("ram", "")) {
            byte[] data = random(3, 1024);
            assertEquals(S_IOERR, new FakeQueue(backend, 0).read(SECTORS, data));
            assertArrayEquals(new byte[1024], data);
        }
    }

    @Test
    @Tag("DEV-BLK-020")
    void readOnlyDiskRefusesWritesAndKeepsItsBytes() throws Exception {
        Files.write(dir.resolve("disk.img"), random(4, BYTES));
        try (Backend backend = open("file", ",readonly")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            assertTrue(backend.offered().has(BlockFeature.RO));
            assertFalse(backend.offered().has(BlockFeature.DISCARD));
            assertEquals(S_IOERR, queue.write(0, new byte[512]));
            assertEquals(S_UNSUPP, queue.range(BlockRequest.DISCARD, 0, 8, 0));
            assertEquals(S_UNSUPP, queue.range(BlockRequest.WRITE_ZEROES, 0, 8, 0));
            assertEquals(S_OK, queue.read(0, new byte[512]));
        }
        assertArrayEquals(random(4, BYTES), Files.readAllBytes(dir.resolve("disk.img")));
    }

    @Test
    @Tag("DEV-BLK-021")
    @Tag("DEV-BLK-022")
    void unknownFlagsAndUnmapOfADiscardAreUnsupported() throws Exception {
        try (Backend backend = open("ram", "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            byte[] data = random(5, 512);
            queue.write(0, data);
            assertEquals(S_UNSUPP, queue.range(BlockRequest.DISCARD, 0, 1, BlockRequest.UNMAP));
            assertEquals(S_UNSUPP, queue.range(BlockRequest.DISCARD, 0, 1, 1 << 31));
            assertEquals(S_UNSUPP, queue.range(BlockRequest.WRITE_ZEROES, 0, 1, 2));
            assertEquals(
                    S_UNSUPP,
                    queue.request(
                            BlockRequest.WRITE_ZEROES,
                            0,
                            List.of(FakeQueue.segment(0, 1, 0), FakeQueue.segment(8, 1, 4)),
                            List.of()));
            byte[] read = new byte[512];
            queue.read(0, read);
            assertArrayEquals(data, read);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"ram", "file"})
    @Tag("DEV-BLK-025")
    void zeroedSectorsReadAsZeroWithOrWithoutUnmap(String kind) throws Exception {
        try (Backend backend = open(kind, "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            for (int flags : new int[] {0, BlockRequest.UNMAP}) {
                queue.write(0, random(6, 8192));
                assertEquals(S_OK, queue.range(BlockRequest.WRITE_ZEROES, 1, 14, flags));
                byte[] expected = random(6, 8192);
                Arrays.fill(expected, 512, 15 * 512, (byte) 0);
                byte[] read = new byte[8192];
                queue.read(0, read);
                assertArrayEquals(expected, read);
            }
        }
    }

    @Test
    void rangeRequestsKeepToTheirLimits() throws Exception {
        try (Backend backend = open("ram", "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            MemorySegment one = FakeQueue.segment(0, 1, 0);
            List<MemorySegment> most = Collections.nCopies(BlkBackend.MAX_RANGES, one);
            List<MemorySegment> more = Collections.nCopies(BlkBackend.MAX_RANGES + 1, one);
            for (int type : new int[] {BlockRequest.DISCARD, BlockRequest.WRITE_ZEROES}) {
                assertEquals(S_OK, queue.request(type, 0, most, List.of()));
                assertEquals(S_IOERR, queue.request(type, 0, more, List.of()));
                assertEquals(S_IOERR, queue.request(type, 0, List.of(), List.of()));
                assertEquals(
                        S_IOERR, queue.request(type, 0, List.of(one.asSlice(0, 15)), List.of()));
                assertEquals(S_IOERR, queue.range(type, 0, BlkBackend.MAX_RANGE_SECTORS + 1L, 0));
                assertEquals(S_IOERR, queue.range(type, 0, 0xFFFFFFFFL, 0));
            }
        }
    }

    @Test
    @Tag("DEV-BLK-033")
    void zoneAndUnknownRequestsAreUnsupported() throws Exception {
        try (Backend backend = open("ram", "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            for (int type : new int[] {2, 10, 14, 15, 16, 18, 20, 22, 24, 26, 99, -1}) {
                assertEquals(
                        S_UNSUPP, queue.request(type, 0, List.of(), List.of()), "type " + type);
            }
        }
    }

    @Test
    void requestWithoutStatusByteBreaksTheQueueBySentence() throws Exception {
        try (Backend backend = open("ram", "")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            FakeQueue.Buffer buffer = new FakeQueue.Buffer();
            buffer.out = List.of(Arena.ofAuto().allocate(16));
            VirtioException e = assertThrows(VirtioException.class, () -> queue.serve(buffer));
            assertEquals(
                    "queue 0: request with 16 device-readable bytes has no byte for its status",
                    e.getMessage());
        }
    }

    @Test
    void requestWithHalfAHeaderIsAnError() throws Exception {
        try (Backend backend = open("ram", "")) {
            FakeQueue.Buffer buffer = new FakeQueue.Buffer();
            buffer.out = List.of(Arena.ofAuto().allocate(15));
            buffer.in = List.of(Arena.ofAuto().allocate(513));
            new FakeQueue(backend, 0).serve(buffer);
            assertEquals(513, buffer.written);
            assertEquals(S_IOERR, buffer.in.get(0).asByteBuffer().get(512));
        }
    }

    @Test
    void idIsTheSerialPaddedWithZeroes() throws Exception {
        try (Backend backend = open("ram", ",serial=here I am")) {
            MemorySegment id = Arena.ofAuto().allocate(20);
            id.fill((byte) 1);
            FakeQueue queue = new FakeQueue(backend, 0);
            assertEquals(S_OK, queue.request(BlockRequest.GET_ID, 0, List.of(), List.of(id)));
            byte[] expected = Arrays.copyOf("here I am".getBytes(StandardCharsets.UTF_8), 20);
            assertArrayEquals(expected, id.toArray(java.lang.foreign.ValueLayout.JAVA_BYTE));
        }
    }

    @Test
    @Tag("DEV-BLK-001")
    @Tag("DEV-BLK-003")
    @Tag("DEV-BLK-004")
    @Tag("DEV-BLK-026")
    @Tag("DEV-BLK-031")
    void offersFlushAndNothingItLacks() throws Exception {
        try (Backend backend = open("ram", ",blocksize=1024,queues=3")) {
            assertTrue(backend.offered().has(BlockFeature.FLUSH));
            assertTrue(backend.offered().has(BlockFeature.MQ));
            for (int bit :
                    new int[] {
                        BlockFeature.RO,
                        BlockFeature.CONFIG_WCE,
                        BlockFeature.LIFETIME,
                        BlockFeature.SECURE_ERASE,
                        BlockFeature.ZONED
                    }) {
                assertFalse(backend.offered().has(bit), BlockFeature.name(bit));
            }
            byte[] bytes = new byte[BlockConfig.BYTES];
            backend.readConfig(0, bytes);
            ByteBuffer config = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
            assertEquals(SECTORS, config.getLong(BlockConfig.CAPACITY_SECTORS));
            assertEquals(1024, config.getInt(BlockConfig.BLK_SIZE));
            assertEquals(2, config.get(BlockConfig.PHYSICAL_BLOCK_EXP));
            assertEquals(4, config.getShort(BlockConfig.MIN_IO_SIZE));
            assertEquals(3, config.getShort(BlockConfig.NUM_QUEUES));
            assertEquals(2, config.getInt(BlockConfig.DISCARD_SECTOR_ALIGNMENT));
            assertEquals(0, config.get(BlockConfig.WRITE_ZEROES_MAY_UNMAP));
            assertEquals(0, config.get(33), "unused0");
            for (int i = 57; i < 60; i++) {
                assertEquals(0, config.get(i), "unused1");
            }
        }
    }

    @Test
    @Tag("DEV-BLK-028")
    void writesAreStableBeforeTheyCompleteUnlessTheDriverCanFlush() throws Exception {
        List<String> calls = new ArrayList<>();
        try (Backend backend =
                new BlkBackend(new Recording(calls), BlkSpec.parse("x"), "recording")) {
            FakeQueue queue = new FakeQueue(backend, 0);
            backend.accepted(backend.offered());
            queue.write(0, new byte[512]);
            queue.request(BlockRequest.FLUSH, 0, List.of(), List.of());
            assertEquals(List.of("write", "flush"), calls);
            calls.clear();
            backend.accepted(backend.offered().without(BlockFeature.FLUSH));
            queue.write(0, new byte[512]);
            queue.range(BlockRequest.WRITE_ZEROES, 0, 1, 0);
            assertEquals(List.of("write", "flush", "zero", "flush"), calls);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"ram", "file"})
    void queuesServeAtTheSameTime(String kind) throws Exception {
        int queues = 4;
        try (Backend backend = open(kind, ",queues=4");
                var threads = Executors.newFixedThreadPool(queues)) {
            List<Callable<Void>> work = new ArrayList<>();
            for (int q = 0; q < queues; q++) {
                int index = q;
                FakeQueue queue = new FakeQueue(backend, q);
                work.add(
                        () -> {
                            // Sectors of all queues interleave, so that they share chunks.
                            for (int i = 0; i < 500; i++) {
                                long sector = (long) i * queues + index;
                                byte[] data = random(sector, 512);
                                assertEquals(S_OK, queue.write(sector, data));
                                byte[] read = new byte[512];
                                assertEquals(S_OK, queue.read(sector, read));
                                assertArrayEquals(data, read);
                            }
                            return null;
                        });
            }
            for (Future<Void> done : threads.invokeAll(work)) {
                done.get();
            }
        }
    }

    private record Recording(List<String> calls) implements Storage {
        @Override
        public long capacityBytes() {
            return BYTES;
        }

        @Override
        public void read(long offset, Chain into, long chainOffset, long length) {}

        @Override
        public void write(long offset, Chain from, long chainOffset, long length) {
            calls.add("write");
        }

        @Override
        public void zero(long offset, long length) {
            calls.add("zero");
        }

        @Override
        public void flush() {
            calls.add("flush");
        }

        @Override
        public void onCapacityChange(Runnable listener) {}

        @Override
        public void close() {}
    }
}
