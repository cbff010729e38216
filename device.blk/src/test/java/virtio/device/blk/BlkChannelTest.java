package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.VirtioException;
import virtio.api.block.BlockConfig;
import virtio.api.block.BlockFeature;

import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.NonWritableChannelException;
import java.nio.channels.SeekableByteChannel;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class BlkChannelTest {
    private static final int BYTES = 4 << 20;

    private final FakeDisk fake = new FakeDisk(BYTES);

    private BlkDevice probe() throws Exception {
        fake.features = fake.features.with(BlockFeature.BLK_SIZE);
        fake.set32(BlockConfig.BLK_SIZE, 1024);
        return (BlkDevice) new BlkDriver(d -> () -> {}).probe(fake);
    }

    @AfterEach
    void noClauseWasBroken() throws Exception {
        fake.settle();
        fake.close();
        assertEquals(List.of(), fake.violations);
    }

    @Test
    void bytesAreWhereAnArrayHasThem() throws Exception {
        byte[] model = new byte[BYTES];
        Random random = new Random(3);
        try (SeekableByteChannel channel = probe().channel()) {
            for (int i = 0; i < 300; i++) {
                int position = random.nextInt(BYTES);
                int length = random.nextInt(i % 20 == 0 ? 3 << 20 : 5000);
                int fits = Math.min(length, BYTES - position);
                channel.position(position);
                if (random.nextBoolean()) {
                    byte[] data = new byte[length];
                    random.nextBytes(data);
                    ByteBuffer from =
                            i % 3 == 0
                                    ? ByteBuffer.wrap(data).asReadOnlyBuffer()
                                    : ByteBuffer.allocateDirect(length).put(data).flip();
                    assertEquals(fits, channel.write(from));
                    assertEquals(length - fits, from.remaining());
                    System.arraycopy(data, 0, model, position, fits);
                } else {
                    ByteBuffer into = ByteBuffer.allocate(length);
                    assertEquals(length == 0 ? 0 : fits, channel.read(into));
                    assertArrayEquals(
                            Arrays.copyOfRange(model, position, position + fits),
                            Arrays.copyOf(into.array(), fits));
                }
                assertEquals(position + fits, channel.position());
            }
        }
        assertArrayEquals(model, fake.image);
        assertEquals(1, fake.memory.live(), "the slots only");
    }

    @Test
    void theEndOfTheDiskIsTheEndOfTheChannel() throws Exception {
        try (SeekableByteChannel channel = probe().channel()) {
            assertEquals(BYTES, channel.size());
            channel.position(BYTES + 5L);
            assertEquals(-1, channel.read(ByteBuffer.allocate(1)));
            assertEquals(0, channel.read(ByteBuffer.allocate(0)));
            assertThrows(VirtioException.class, () -> channel.write(ByteBuffer.allocate(1)));
            channel.truncate(BYTES);
            assertEquals(BYTES, channel.position());
            assertThrows(VirtioException.class, () -> channel.truncate(0));
            assertThrows(IllegalArgumentException.class, () -> channel.position(-1));
        }
    }

    @Test
    void closeFlushesWhatWasWritten() throws Exception {
        BlkDevice disk = probe();
        SeekableByteChannel channel = disk.channel();
        channel.read(ByteBuffer.allocate(10));
        fake.takeServed();
        channel.close();
        assertEquals(List.of(), fake.takeServed());
        SeekableByteChannel writer = disk.channel();
        writer.write(ByteBuffer.allocate(1024));
        writer.close();
        assertEquals(List.of("1@0+1024", "4@0+0"), fake.takeServed());
        assertFalse(writer.isOpen());
        assertThrows(ClosedChannelException.class, () -> writer.position());
        assertThrows(ClosedChannelException.class, () -> writer.write(ByteBuffer.allocate(1)));
        writer.close();
    }

    @Test
    void readOnlyDiskMakesAReadOnlyChannel() throws Exception {
        fake.features = fake.features.with(BlockFeature.RO);
        try (SeekableByteChannel channel = probe().channel()) {
            assertThrows(
                    NonWritableChannelException.class, () -> channel.write(ByteBuffer.allocate(1)));
        }
    }

    @Test
    void channelsThatWritePartsOfOneBlockLoseNothing() throws Exception {
        BlkDevice disk = probe();
        Thread[] writers = new Thread[8];
        for (int w = 0; w < writers.length; w++) {
            int mine = w;
            writers[w] =
                    Thread.ofPlatform()
                            .start(
                                    () -> {
                                        try (SeekableByteChannel channel = disk.channel()) {
                                            for (int i = mine; i < 2048; i += 8) {
                                                channel.position(i);
                                                channel.write(
                                                        ByteBuffer.wrap(new byte[] {(byte) mine}));
                                            }
                                        } catch (Exception e) {
                                            fake.violation(e.toString());
                                        }
                                    });
        }
        for (Thread writer : writers) {
            writer.join();
        }
        for (int i = 0; i < 2048; i++) {
            assertEquals(i % 8, fake.image[i], "byte " + i);
        }
    }

    @Test
    void interruptStaysAndTheCallIsWhole() throws Exception {
        try (SeekableByteChannel channel = probe().channel()) {
            Thread.currentThread().interrupt();
            assertEquals(
                    10, channel.write(ByteBuffer.wrap(new byte[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 1})));
            assertTrue(Thread.interrupted());
            assertEquals(9, fake.image[8]);
        }
    }

    @Test
    void deviceErrorIsAnIoException() throws Exception {
        SeekableByteChannel channel = probe().channel();
        fake.status = 1;
        VirtioException e =
                assertThrows(VirtioException.class, () -> channel.read(ByteBuffer.allocate(1)));
        assertEquals(
                "blk0: read of 1024 bytes at 0 failed: the device reports an I/O error",
                e.getMessage());
        channel.close();
        assertEquals(1, fake.memory.live());
    }
}
