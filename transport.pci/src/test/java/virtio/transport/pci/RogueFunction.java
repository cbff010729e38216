package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import virtio.api.VirtioException;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * An emulated function that keeps a record of what is done to it, holds the driver to the rules of
 * access, and can be made to lie: in its configuration space, in registers, about its interrupts.
 */
final class RogueFunction implements PciFunction {
    final EmulatedFunction honest;
    final List<String> record = new ArrayList<>();

    /** Configuration space as it is shown, where it is not 0xffff. */
    private final ByteBuffer image = ByteBuffer.allocate(256).order(ByteOrder.LITTLE_ENDIAN);

    /** What a register of the common configuration shows, a limited number of times. */
    private final Map<Integer, int[]> lies = new HashMap<>();

    boolean msixPossible = true;
    int mostVectors = 64;
    boolean pinPossible = true;
    boolean allOnes;
    boolean translated;
    long bar0Bytes;

    RogueFunction(EmulatedFunction honest) {
        this.honest = honest;
        for (int i = 0; i < 256; i++) {
            image.put(i, (byte) honest.readConfig(i, 1));
        }
        bar0Bytes = honest.barBytes(0);
    }

    /** Shows other bytes in configuration space. */
    void show(int offset, int width, int value) {
        for (int i = 0; i < width; i++) {
            image.put(offset + i, (byte) (value >>> 8 * i));
        }
    }

    /** Offset of the capability of a virtio type. */
    int capability(int type) {
        int at = image.get(0x34) & 0xff;
        while (image.get(at) != 9 || image.get(at + 3) != type) {
            at = image.get(at + 1) & 0xff;
        }
        return at;
    }

    void lie(int offset, int times, int value) {
        lies.put(offset, new int[] {times, value});
    }

    @Override
    public synchronized int readConfig(int offset, int width) {
        if (allOnes) {
            return -1 >>> 32 - 8 * width;
        }
        if (offset == PciRegisters.COMMAND) {
            return honest.readConfig(offset, width);
        }
        int value = 0;
        for (int i = 0; i < width; i++) {
            value |= (image.get(offset + i) & 0xff) << 8 * i;
        }
        return value;
    }

    @Override
    public synchronized void writeConfig(int offset, int width, int value) {
        assertEquals(PciRegisters.COMMAND, offset, "what a driver writes in configuration space");
        record.add("C=%x".formatted(value));
        honest.writeConfig(offset, width, value);
    }

    @Override
    public boolean translated() {
        return translated;
    }

    @Override
    public long barBytes(int bar) {
        return bar == 0 ? bar0Bytes : honest.barBytes(bar);
    }

    @Override
    public synchronized int read(int bar, long offset, int width) {
        if (allOnes) {
            return -1 >>> 32 - 8 * width;
        }
        check(bar, offset, width);
        if (offset < 64) {
            assertEquals(bytes((int) offset), width, "width of a read at " + offset);
            int[] lie = lies.get((int) offset);
            if (lie != null && lie[0]-- > 0) {
                return lie[1];
            }
        }
        record.add("R%d".formatted(offset));
        return honest.read(bar, offset, width);
    }

    @Override
    public synchronized void write(int bar, long offset, int width, int value) {
        check(bar, offset, width);
        if (offset < 64) {
            int at = (int) offset;
            assertEquals(bytes(at), width, "width of a write at " + offset);
            for (int readOnly : new int[] {4, 18, 21, 30, 56}) {
                assertNotEquals(readOnly, at, "write to a read-only register");
            }
            if (at == 28) {
                assertEquals(1, value, "queue_enable");
            }
        }
        record.add("W%d.%d=%x".formatted(offset, 8 * width, value));
        honest.write(bar, offset, width, value);
    }

    private void check(int bar, long offset, int width) {
        assertEquals(0, bar, "no business of the driver's elsewhere");
        assertEquals(0, offset % width, "aligned access at " + offset);
    }

    private static int bytes(int offset) {
        return switch (offset) {
            case 20, 21 -> 1;
            case 0, 4, 8, 12, 32, 36, 40, 44, 48, 52 -> 4;
            default -> 2;
        };
    }

    @Override
    public int enableMsix(int vectors) {
        record.add("msix " + vectors);
        return msixPossible ? honest.enableMsix(Math.min(vectors, mostVectors)) : 0;
    }

    @Override
    public boolean enablePin() {
        record.add("pin");
        return pinPossible && honest.enablePin();
    }

    @Override
    public void disableInterrupts() {
        record.add("no interrupts");
        honest.disableInterrupts();
    }

    @Override
    public VirtioException gone() {
        return honest.gone();
    }

    @Override
    public void detach(Driver driver) {
        honest.detach(driver);
    }
}
