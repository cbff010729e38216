package virtio.transport.vduse;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.linux.EventFd;
import virtio.linux.FileDescriptor;
import virtio.linux.LinuxException;
import virtio.linux.Mapping;
import virtio.linux.SharedMemory;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * A program for a guest that drives a disk of ours badly, resets it after each misdeed and reads a
 * sector properly: its server must have said what was wrong, and go on.
 */
public final class RogueDriver {
    private static final int SIZE = 16;
    private static final long IOVA = 1 << 20;
    private static final long BYTES = 1 << 20;
    private static final long NOWHERE = 1L << 36;

    private static final long DESCRIPTORS = 0;
    private static final long AVAILABLE = 0x1000;
    private static final long USED = 0x2000;
    private static final long HEADER = 0x3000;
    private static final long STATUS = 0x3100;
    private static final long DATA = 0x4000;
    private static final int SECTOR = 512;

    private static final short NEXT = 1;
    private static final short WRITE = 2;
    private static final short INDIRECT = 4;
    private static final int UP =
            DeviceStatus.ACKNOWLEDGE
                    | DeviceStatus.DRIVER
                    | DeviceStatus.FEATURES_OK
                    | DeviceStatus.DRIVER_OK;

    private static final int ROUNDS = 10;
    private static final int PATIENCE_SECONDS = 30;

    private final VhostVdpa kernel;
    private final MemorySegment memory;
    private final Path log;
    private final EventFd kick = EventFd.create();
    private final EventFd call = EventFd.create();
    private int logged;
    private int published;
    private boolean shown;

    private RogueDriver(VhostVdpa kernel, MemorySegment memory, Path log) throws LinuxException {
        this.kernel = kernel;
        this.memory = memory;
        this.log = log;
    }

    @FunctionalInterface
    private interface Misdeed {
        void run() throws Exception;
    }

    /** With the device's file and its server's log. */
    public static void main(String[] args) throws Exception {
        try (SharedMemory shared = SharedMemory.create("rogue", BYTES);
                VhostVdpa kernel = VhostVdpaFile.open(Path.of(args[0]))) {
            kernel.setOwner();
            kernel.backendFeatures(1L << VhostVdpa.BACKEND_F_IOTLB_MSG_V2);
            RogueDriver rogue = new RogueDriver(kernel, shared.segment(), Path.of(args[1]));
            rogue.start(IOVA);
            rogue.read("nothing wrong");
            rogue.start(NOWHERE);
            int status = kernel.status();
            System.out.println(
                    "rings nowhere: "
                            + ((status & DeviceStatus.DRIVER_OK) == 0 ? "refused" : "up"));
            rogue.reset();
            rogue.attempt("buffer nowhere", () -> rogue.chain(0, NOWHERE, SECTOR, NEXT));
            rogue.attempt("buffer of 4 GiB", () -> rogue.chain(0, IOVA + DATA, -1, NEXT));
            rogue.attempt("endless chain", () -> rogue.chain(0, IOVA + DATA, SECTOR, (short) -1));
            rogue.attempt("table of one's own", () -> rogue.chain(0, NOWHERE, SECTOR, INDIRECT));
            rogue.attempt("head of no descriptor", () -> rogue.publish(999, 1));
            rogue.attempt("index that jumps", () -> rogue.publish(0, 1000));
            for (int round = 0; round < ROUNDS; round++) {
                rogue.start(IOVA);
                for (int head = 0; head + 2 < SIZE; head += 3) {
                    rogue.chain(head, IOVA + DATA, SECTOR, NEXT);
                }
                rogue.hide();
                rogue.reset();
            }
            System.out.println("memory taken away from what is in flight: survived");
            rogue.start(IOVA);
            rogue.read("memory taken away");
            rogue.reset();
            cutOff(kernel, Path.of(args[1]));
        }
    }

    /** Shows a file that has no bytes any more when its server looks into the ring. */
    private static void cutOff(VhostVdpa kernel, Path log) throws Exception {
        Path path = Files.createTempFile("rogue", ".memory");
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            file.setLength(BYTES);
            try (FileDescriptor opened = FileDescriptor.open(path, FileDescriptor.O_RDWR);
                    Mapping mapping = Mapping.map(opened, 0, BYTES, true)) {
                RogueDriver rogue = new RogueDriver(kernel, mapping.segment(), log);
                rogue.start(IOVA);
                rogue.read("another memory");
                rogue.logged = Files.readString(log).length();
                file.setLength(0);
                rogue.kick.signal();
                String said = null;
                long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
                while (said == null && System.nanoTime() - end < 0) {
                    said = rogue.broken();
                }
                System.out.println("memory cut off: " + said);
                file.setLength(BYTES);
                rogue.start(IOVA);
                rogue.read("memory cut off");
                rogue.reset();
            }
        }
    }

    private void attempt(String what, Misdeed misdeed) throws Exception {
        start(IOVA);
        logged = Files.readString(log).length();
        misdeed.run();
        System.out.println(what + ": " + complaint());
        start(IOVA);
        read(what);
    }

    private void reset() throws LinuxException {
        kernel.status(0);
        hide();
    }

    private void hide() throws LinuxException {
        if (shown) {
            shown = false;
            kernel.iotlb(VhostVdpa.Iotlb.INVALIDATE, 0, IOVA, BYTES, 0);
        }
    }

    private void start(long rings) throws LinuxException {
        reset();
        memory.fill((byte) 0);
        published = 0;
        kernel.status(DeviceStatus.ACKNOWLEDGE);
        kernel.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        kernel.features(Features.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM).word(0));
        kernel.status(UP & ~DeviceStatus.DRIVER_OK);
        kernel.iotlb(VhostVdpa.Iotlb.UPDATE, 0, IOVA, BYTES, memory.address());
        shown = true;
        kernel.vringNum(0, SIZE);
        kernel.vringBase(0, 0);
        kernel.vringAddresses(0, rings + DESCRIPTORS, rings + AVAILABLE, rings + USED);
        kernel.vringCall(0, call);
        kernel.vringKick(0, kick);
        kernel.vringEnable(0, true);
        kernel.status(UP);
    }

    /** A read of sector 0 in three descriptors, of which the second is what is given. */
    private void chain(int head, long data, int bytes, short flags) throws LinuxException {
        descriptor(head, IOVA + HEADER, 16, NEXT, head + 1);
        // Flags of -1: a descriptor that is followed by itself.
        boolean endless = flags == -1;
        int next = endless ? head + 1 : head + 2;
        descriptor(head + 1, data, bytes, (short) (WRITE | (endless ? NEXT : flags)), next);
        descriptor(head + 2, IOVA + STATUS, 1, WRITE, 0);
        publish(head, 1);
    }

    private void descriptor(int index, long address, int bytes, short flags, int next) {
        long at = DESCRIPTORS + 16L * index;
        memory.set(JAVA_LONG, at, address);
        memory.set(JAVA_INT, at + 8, bytes);
        memory.set(JAVA_SHORT, at + 12, flags);
        memory.set(JAVA_SHORT, at + 14, (short) next);
    }

    private void publish(int head, int more) throws LinuxException {
        memory.set(JAVA_SHORT, AVAILABLE + 4 + 2 * (published % SIZE), (short) head);
        published += more;
        memory.set(JAVA_SHORT, AVAILABLE + 2, (short) published);
        kick.signal();
    }

    private void read(String after) throws Exception {
        memory.set(JAVA_BYTE, STATUS, (byte) -1);
        chain(0, IOVA + DATA, SECTOR, NEXT);
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (memory.get(JAVA_SHORT, USED + 2) != (short) published) {
            if (System.nanoTime() - end > 0) {
                throw new IllegalStateException("no sector can be read after: " + after);
            }
            Thread.sleep(10);
        }
        if (memory.get(JAVA_BYTE, STATUS) != 0) {
            throw new IllegalStateException("a sector is read with an error after: " + after);
        }
    }

    /** What its server has to say next of a broken queue. */
    private String complaint() throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (System.nanoTime() - end < 0) {
            String line = broken();
            if (line != null) {
                return line;
            }
            if (memory.get(JAVA_SHORT, USED + 2) != 0) {
                return "used with status " + memory.get(JAVA_BYTE, STATUS);
            }
            Thread.sleep(10);
        }
        return "nothing said";
    }

    /** What its server has said of a broken queue since; null when nothing. */
    private String broken() throws IOException {
        // The last line may not be whole yet.
        String said = Files.readString(log).substring(logged);
        return said.substring(0, said.lastIndexOf('\n') + 1)
                .lines()
                .filter(line -> line.contains("broken"))
                .findFirst()
                .orElse(null);
    }
}
