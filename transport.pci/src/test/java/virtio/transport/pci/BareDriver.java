package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.transport.EmulatedMemory;
import virtio.tck.TestDevice;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicBoolean;

/** A driver by hand, access by access, of an emulated function made for each test. */
abstract class BareDriver implements PciFunction.Driver {
    static final int FEATURES_OK =
            DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;
    static final int DRIVER_OK = FEATURES_OK | DeviceStatus.DRIVER_OK;
    static final int NO_VECTOR = 0xffff;
    static final int MSIX = 0x11;

    final BlockingQueue<Integer> interrupts = new LinkedBlockingQueue<>();
    final AtomicBoolean isGone = new AtomicBoolean();
    TestDevice device;
    private EmulatedMemory memory;
    EmulatedFunction function;

    /** By type, where the structure lies in BAR 0; found once, as a driver does. */
    private final int[] offsets = new int[5];

    @Override
    public void interrupt(int vector) {
        interrupts.add(vector);
    }

    @Override
    public void gone() {
        isGone.set(true);
    }

    @BeforeEach
    void make() throws Exception {
        device =
                new TestDevice(2, 12)
                        .offer(Features.of(3, 70, 126, Feature.VERSION_1))
                        .maxQueueSize(128);
        memory = PciProvider.memory("test", 1 << 20, 1 << 16);
        function = new EmulatedFunction("pci:test", device, 3, () -> {});
        function.attach(this, memory);
        config(4, 2, PciRegisters.COMMAND_MEMORY | PciRegisters.COMMAND_BUS_MASTER);
        for (int type = 1; type < offsets.length; type++) {
            assertEquals(0, config(capability(9, type) + 4, 1), "all in BAR 0");
            offsets[type] = config(capability(9, type) + 8, 4);
        }
    }

    @AfterEach
    void close() {
        function.close();
        memory.release();
    }

    int config(int offset, int width) {
        return function.readConfig(offset, width);
    }

    void config(int offset, int width, int value) {
        function.writeConfig(offset, width, value);
    }

    /** Offset of the n-th capability of an id and, for virtio's, a type; 0 when there is none. */
    int capability(int id, int type) {
        for (int at = config(0x34, 1); at != 0; at = config(at + 1, 1)) {
            if (config(at, 1) == id && (id == MSIX || config(at + 3, 1) == type)) {
                return at;
            }
        }
        return 0;
    }

    int access(int type, int offset, int width) {
        return function.read(0, offsets[type] + offset, width);
    }

    void access(int type, int offset, int width, int value) {
        function.write(0, offsets[type] + offset, width, value);
    }

    int read(int offset, int width) {
        return access(1, offset, width);
    }

    void write(int offset, int width, int value) {
        access(1, offset, width, value);
    }

    int status() {
        return read(20, 1);
    }

    void status(int value) {
        write(20, 1, value);
    }

    int offeredWord(int select) {
        write(0, 4, select);
        return read(4, 4);
    }

    void accept(int... words) {
        for (int select = 0; select < words.length; select++) {
            write(8, 4, select);
            write(12, 4, words[select]);
            assertEquals(words[select], read(12, 4), "driver_feature reads back");
        }
    }

    void negotiate(int... more) {
        Features features = Features.of(more).with(Feature.VERSION_1);
        accept(
                (int) features.word(0),
                (int) (features.word(0) >>> 32),
                (int) features.word(1),
                (int) (features.word(1) >>> 32));
        status(FEATURES_OK);
        assertEquals(FEATURES_OK, status());
    }

    void enable(int queue) {
        write(22, 2, queue);
        write(24, 2, 64);
        write(28, 2, 1);
        assertEquals(1, read(28, 2));
    }

    void run(int... features) {
        negotiate(features);
        enable(0);
        status(DRIVER_OK);
        assertEquals(DRIVER_OK, status());
    }
}
