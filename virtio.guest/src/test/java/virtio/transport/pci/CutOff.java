package virtio.transport.pci;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.transport.QueueLayout;
import virtio.linux.Memory;
import virtio.linux.SharedMemory;

import java.lang.foreign.MemorySegment;

/**
 * A program for a guest: a disk reads into memory that is mapped for it, and is told to read into
 * the same place once more after the mapping was taken back.
 */
public final class CutOff {
    private static final int SIZE = 16;
    private static final int NEXT = 1;
    private static final int WRITE = 2;
    private static final byte MARK = 0x5a;
    private static final long PATIENCE_NANOS = 5_000_000_000L;

    private final PciTransport transport;
    private final MemorySegment ring;
    private final long ringHandle;
    private int available;

    private CutOff(PciTransport transport, CoherentMemory ring) {
        this.transport = transport;
        this.ring = ring.segment();
        this.ringHandle = ring.mapHandle();
    }

    /** With the function's address. */
    public static void main(String[] args) throws Exception {
        String where = "pci:" + args[0];
        PciSlot slot = PciSlot.of(PciSlot.DEVICES, args[0]).orElseThrow();
        VfioFunction function = VfioFunction.open(where, slot, () -> {});
        VfioMemory memory = VfioMemory.create(where, function.group(), 4 << 20, 1 << 20);
        PciTransport transport = new PciTransport(where, function, memory);
        function.attach(transport, memory);
        transport.start();
        CoherentMemory ring = memory.alloc(4 * 4096);
        try (SharedMemory target = SharedMemory.create("target", Memory.PAGE_BYTES)) {
            CutOff disk = new CutOff(transport, ring);
            disk.start();
            target.segment().fill(MARK);
            long iova = function.group().map(where, target.segment(), Memory.PAGE_BYTES);
            System.out.println("mapped: " + disk.read(iova) + ", " + state(target.segment()));
            target.segment().fill(MARK);
            function.group().unmap(iova, Memory.PAGE_BYTES);
            System.out.println("unmapped: " + disk.read(iova) + ", " + state(target.segment()));
        }
        memory.free(ring);
        transport.close();
    }

    private static String state(MemorySegment target) {
        for (long i = 0; i < 512; i++) {
            if (target.get(JAVA_BYTE, i) != MARK) {
                return "memory written";
            }
        }
        return "memory untouched";
    }

    private void start() throws VirtioException {
        int known = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER;
        transport.status(known);
        transport.accept(Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM));
        transport.status(known | DeviceStatus.FEATURES_OK);
        transport.startQueue(
                0, new QueueLayout(SIZE, ringHandle, ringHandle + 4096, ringHandle + 8192));
        transport.status(known | DeviceStatus.FEATURES_OK | DeviceStatus.DRIVER_OK);
    }

    /** Reads sector 0 to where the device sees {@code target}; what came of it. */
    private String read(long target) throws Exception {
        ring.asSlice(12288, 4096).fill((byte) 0);
        descriptor(0, ringHandle + 12288, 16, NEXT);
        descriptor(1, target, 512, NEXT | WRITE);
        descriptor(2, ringHandle + 12288 + 64, 1, WRITE);
        ring.set(JAVA_SHORT, 4096 + 4 + 2 * (available % SIZE), (short) 0);
        available++;
        ring.set(JAVA_SHORT, 4096 + 2, (short) available);
        transport.notifyQueue(0, 0);
        long end = System.nanoTime() + PATIENCE_NANOS;
        while (System.nanoTime() - end < 0) {
            if (ring.get(JAVA_SHORT, 8192 + 2) == available) {
                return "used with status " + ring.get(JAVA_BYTE, 12288 + 64);
            }
            if ((transport.status() & DeviceStatus.DEVICE_NEEDS_RESET) != 0) {
                return "the device needs a reset";
            }
            Thread.sleep(10);
        }
        return "no answer";
    }

    private void descriptor(int index, long handle, int length, int flags) {
        long at = 16L * index;
        ring.set(JAVA_LONG, at, handle);
        ring.set(JAVA_INT, at + 8, length);
        ring.set(JAVA_SHORT, at + 12, (short) flags);
        ring.set(JAVA_SHORT, at + 14, (short) (index + 1));
    }
}
