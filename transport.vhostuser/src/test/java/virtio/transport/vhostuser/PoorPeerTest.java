package virtio.transport.vhostuser;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.DeviceType;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;

import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.List;

/** The front-end against back-ends that offer less. */
class PoorPeerTest {
    private static final long NOTHING_TAKEN = 0;

    @TempDir Path folder;
    private final List<Integer> before = Peers.live();
    private final RamDevice device = new RamDevice();

    @AfterEach
    void nothingIsLeft() {
        assertEquals(before, Peers.live(), "descriptors and mappings");
    }

    private VhostUserTransport open(Path socket, int type) throws VirtioException {
        return new VhostUserTransport(
                new VhostUserProvider.Device(
                        "vhost-user:" + socket, socket, type, 1 << 20, 4096, 10_000));
    }

    private interface Try {
        void run(TinyDisk disk) throws Exception;
    }

    private void against(long features, long protocol, Try body) throws Exception {
        Path rich = folder.resolve("rich.sock");
        Path poor = folder.resolve("poor.sock");
        try (VhostUserExport _ = new VhostUserExport("rich", rich, Features.NONE, device, _ -> {});
                MaskingProxy _ = new MaskingProxy(poor, rich, features, protocol);
                TinyDisk disk = new TinyDisk(open(poor, DeviceType.BLOCK))) {
            body.run(disk);
        }
    }

    @ParameterizedTest(name = "without {0}")
    @CsvSource({
        "nothing, 0",
        "MQ, 0x1",
        "REPLY_ACK, 0x8",
        "BACKEND_REQ, 0x20",
        "RESET_DEVICE, 0x2000",
        "CONFIGURE_MEM_SLOTS, 0x8000",
        "STATUS, 0x10000",
        "RESET_DEVICE and STATUS, 0x12000",
        "anything but CONFIG, 0xFFFFFFFFFFFFFDFF",
        "anything, 0xFFFFFFFFFFFFFFFF",
    })
    void drivesItsDisk(String what, String taken) throws Exception {
        long protocol = Long.parseUnsignedLong(taken.replace("0x", ""), 16);
        against(NOTHING_TAKEN, protocol, this::drive);
    }

    @Test
    void drivesTheDiskOfOneThatKnowsNoProtocolFeatures() throws Exception {
        against(1L << VhostUser.F_PROTOCOL_FEATURES, NOTHING_TAKEN, this::drive);
    }

    /** Writes and reads, grows its memory, resets and starts again. */
    private void drive(TinyDisk disk) throws Exception {
        var token = disk.transport.mapToken(0);
        byte[] bytes = new byte[512];
        for (int round = 0; round < 3; round++) {
            CoherentMemory grown = disk.ops.alloc(token, 900_000);
            disk.write(round, grown.segment().asSlice(899_000, 512).fill((byte) (7 + round)));
            disk.read(round, MemorySegment.ofArray(bytes));
            assertEquals((byte) (7 + round), bytes[511]);
            disk.start();
            Peers.await("the queue", () -> device.running() == 1);
            disk.ops.free(token, grown);
        }
        assertTrue(disk.gone == null, () -> disk.gone.getMessage());
    }

    @Test
    void saysThatConfigurationIsMissing() throws Exception {
        against(
                NOTHING_TAKEN,
                1L << VhostUser.PROTOCOL_F_CONFIG,
                disk -> {
                    VirtioException e = assertThrows(VirtioException.class, disk::capacity);
                    assertTrue(
                            e.getMessage().contains("does not offer protocol feature CONFIG"),
                            e.getMessage());
                });
    }
}
