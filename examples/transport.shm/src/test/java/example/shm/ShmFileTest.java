package example.shm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;
import virtio.tck.TestDevice;

import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;

/** What is in the file is checked by who opens it, and by the device whoever wrote it. */
@Timeout(60)
class ShmFileTest {
    private ShmUnderTest subject;
    private Path file;

    @BeforeEach
    void setUp() throws Exception {
        subject = new ShmUnderTest();
        file = Path.of(subject.address());
    }

    @AfterEach
    void nothingIsLeft() {
        subject.close();
    }

    private void export() throws VirtioException {
        subject.exporter().export(subject.address(), new TestDevice(2, 16));
    }

    private Transport open() throws VirtioException {
        return subject.provider().open(subject.address());
    }

    private void write(long offset, ByteBuffer bytes) throws Exception {
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
            channel.write(bytes.order(ByteOrder.LITTLE_ENDIAN).rewind(), offset);
        }
    }

    private void write(int offset, int value) throws Exception {
        write(offset, ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(value).rewind());
    }

    private void refused(String... named) {
        VirtioException e = assertThrows(VirtioException.class, () -> open().close());
        for (String part : named) {
            assertTrue(e.getMessage().contains(part), part + " in: " + e.getMessage());
        }
    }

    @Test
    void whatTheFileSaysOfItselfIsChecked() throws Exception {
        export();
        write(ShmLayout.QUEUE_COUNT, 65);
        refused("65 queues", "64");
        write(ShmLayout.QUEUE_COUNT, -1);
        refused("-1 queues");
        write(ShmLayout.QUEUE_COUNT, 2);
        write(ShmLayout.MAX_QUEUE_SIZE, 1 << 20);
        refused("1048576 descriptors", "32768");
        write(ShmLayout.MAX_QUEUE_SIZE, 256);
        write(ShmLayout.CONFIG_BYTES, 4097);
        refused("4097 configuration bytes", "4096");
        write(ShmLayout.CONFIG_BYTES, 16);
        write(ShmLayout.REGION_BYTES, 4097 * 3);
        refused("12291", "4096");
        write(ShmLayout.REGION_BYTES, 16 << 20);
        refused("cut off", "134250496");
        write(ShmLayout.REGION_BYTES, 12 << 20);
        write(ShmLayout.VERSION_AT, 7);
        refused("version 7", "version 1");
        write(ShmLayout.VERSION_AT, ShmLayout.VERSION);
        write(ShmLayout.MAGIC_AT, 0x12345678);
        refused("0x12345678", "0x4d485356");
        write(ShmLayout.MAGIC_AT, ShmLayout.MAGIC);
        open().close();
    }

    @Test
    void aForeignFileIsNeitherOpenedNorReplaced() throws Exception {
        for (byte[] content : new byte[][] {{}, "a letter".getBytes(), new byte[1 << 20]}) {
            Files.write(file, content);
            refused("no device's file");
            VirtioException e = assertThrows(VirtioException.class, this::export);
            assertTrue(e.getMessage().contains("no device's file"), e.getMessage());
            assertEquals(content.length, Files.size(file));
            Files.delete(file);
        }
    }

    @Test
    void addressesThatAreNoAbsolutePathsAreRefusedByName() {
        for (String address : new String[] {"", "x", "/", "/tmp/../tmp/x", "/tmp/\0x"}) {
            VirtioException e =
                    assertThrows(
                            VirtioException.class,
                            () -> subject.exporter().export(address, new TestDevice(1, 0)));
            assertTrue(e.getMessage().contains("shm:" + address), e.getMessage());
        }
        assertThrows(VirtioException.class, () -> subject.provider().open("/no/such/folder/x"));
        assertThrows(
                VirtioException.class,
                () -> subject.exporter().export("/no/such/folder/x", new TestDevice(1, 0)));
    }

    @Test
    void onlyTheOwnerMayOpenTheFile() throws Exception {
        export();
        assertEquals(
                "rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file)));
    }

    @Test
    void aDeviceThatDoesNotFitIsRefusedByNumber() {
        for (TestDevice device :
                new TestDevice[] {new TestDevice(65, 0), new TestDevice(1, 5000)}) {
            VirtioException e =
                    assertThrows(
                            VirtioException.class,
                            () -> subject.exporter().export(subject.address(), device));
            assertTrue(
                    e.getMessage().matches(".*(65 queues|5000 conf).*(64|4096)"), e.getMessage());
        }
    }

    @Test
    void theDeviceDoesNotBelieveTheDriver() throws Exception {
        export();
        Transport transport = open();
        transport.accept(Features.of(Feature.VERSION_1));
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        VirtioException early =
                assertThrows(
                        VirtioException.class,
                        () -> transport.startQueue(0, new QueueLayout(16, 1, 2, 3)));
        assertTrue(early.getMessage().contains("FEATURES_OK is not set"), early.getMessage());
        // Registers of the device that a driver can scribble on.
        write(ShmLayout.STATUS, DeviceStatus.FEATURES_OK);
        assertThrows(
                VirtioException.class, () -> transport.startQueue(0, new QueueLayout(16, 1, 2, 3)));
        transport.status(0);
        assertEquals(0, transport.status());
        // An operation that does not exist, and a queue that does not.
        for (int[] request : new int[][] {{99, 0}, {ShmLayout.STOP_QUEUE, 1 << 30}}) {
            write(ShmLayout.OPERATION, request[0]);
            write(ShmLayout.ARGUMENT, request[1]);
            write(ShmLayout.REQUEST, request[1] + 77);
        }
        // Its owner is not the driver's to name, its region is checked when it comes.
        write(ShmLayout.REGION, -5);
        transport.status(0);
        assertEquals(0, transport.status());
        transport.close();
        open().close();
    }

    @Test
    void regionsOfEarlierDriversAreKeptWhileTheyHoldMemory() throws Exception {
        export();
        List<CoherentMemory> held = new ArrayList<>();
        List<Transport> earlier = new ArrayList<>();
        for (int i = 0; i < ShmLayout.REGIONS; i++) {
            Transport transport = open();
            held.add(subject.mapOps().alloc(transport.mapToken(0), 4096));
            held.getLast().segment().fill((byte) (i + 1));
            earlier.add(transport);
            transport.close();
        }
        refused("all 8 regions");
        for (int i = 0; i < held.size(); i++) {
            assertEquals(i + 1, held.get(i).segment().get(ValueLayout.JAVA_BYTE, 7));
            subject.mapOps().free(earlier.get(i).mapToken(0), held.get(i));
        }
        open().close();
    }
}
