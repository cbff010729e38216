package virtio.transport.vhostuser;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.CoherentMemory;
import virtio.api.map.Direction;
import virtio.api.map.MapOps;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/**
 * The smallest block driver that works: a split ring of 16 with three descriptors for each request,
 * so that the transport is tried with nothing above it.
 */
final class TinyDisk implements Transport.Listener, AutoCloseable {
    static final int SIZE = 16;
    static final int READ = 0;
    static final int WRITE = 1;
    static final int GET_ID = 8;
    private static final int AVAIL = 16 * SIZE;
    private static final int USED = 1024;
    private static final int HEADERS = 2048;

    final MapOps ops = new VhostUserMapOps();
    final Transport transport;
    final Semaphore interrupts = new Semaphore(0);
    final Semaphore configChanges = new Semaphore(0);
    final Semaphore goneSignal = new Semaphore(0);
    volatile VirtioException gone;
    private final CoherentMemory memory;
    private int added;
    private int seen;

    /** Brings the device up as the core does. */
    TinyDisk(Transport transport) throws VirtioException {
        this.transport = transport;
        transport.listen(this);
        memory = ops.alloc(transport.mapToken(0), 4096);
        start();
    }

    void start() throws VirtioException {
        transport.status(0);
        memory.segment().fill((byte) 0);
        added = 0;
        seen = 0;
        transport.status(DeviceStatus.ACKNOWLEDGE);
        transport.status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
        transport.accept(transport.offered().and(Features.of(Feature.VERSION_1)));
        int ready = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;
        transport.status(ready);
        if ((transport.status() & DeviceStatus.FEATURES_OK) == 0) {
            throw new VirtioException("FEATURES_OK is off");
        }
        long at = memory.mapHandle();
        transport.startQueue(0, new QueueLayout(SIZE, at, at + AVAIL, at + USED));
        transport.status(ready | DeviceStatus.DRIVER_OK);
    }

    /** Sends a request of one data buffer that is mapped already. */
    void submit(int type, long sector, long data, int length) {
        MemorySegment m = memory.segment();
        int slot = added % 4;
        int head = slot * 3;
        long header = HEADERS + slot * 32L;
        m.set(ValueLayout.JAVA_INT_UNALIGNED, header, type);
        m.set(ValueLayout.JAVA_LONG_UNALIGNED, header + 8, sector);
        m.set(ValueLayout.JAVA_BYTE, header + 16, (byte) -1);
        descriptor(head, memory.mapHandle() + header, 16, 1, head + 1);
        descriptor(head + 1, data, length, type == WRITE ? 1 : 3, head + 2);
        descriptor(head + 2, memory.mapHandle() + header + 16, 1, 2, 0);
        m.set(ValueLayout.JAVA_SHORT, AVAIL + 4 + 2L * (added % SIZE), (short) head);
        added++;
        VarHandle.fullFence();
        m.set(ValueLayout.JAVA_SHORT, AVAIL + 2, (short) added);
        VarHandle.fullFence();
        transport.notifyQueue(0, 0);
    }

    private void descriptor(int index, long address, int length, int flags, int next) {
        MemorySegment m = memory.segment();
        m.set(ValueLayout.JAVA_LONG, 16L * index, address);
        m.set(ValueLayout.JAVA_INT, 16L * index + 8, length);
        m.set(ValueLayout.JAVA_SHORT, 16L * index + 12, (short) flags);
        m.set(ValueLayout.JAVA_SHORT, 16L * index + 14, (short) next);
    }

    /** Requests that the device has ended so far. */
    int used() {
        VarHandle.fullFence();
        return memory.segment().get(ValueLayout.JAVA_SHORT, USED + 2) & 0xFFFF;
    }

    /** The status byte of a request by its slot. */
    int status(int slot) {
        return memory.segment().get(ValueLayout.JAVA_BYTE, HEADERS + slot * 32L + 16);
    }

    /** Waits by interrupt for the next request to end; its status. */
    int await() throws InterruptedException {
        while (used() == seen) {
            if (!interrupts.tryAcquire(10, TimeUnit.SECONDS)) {
                throw new AssertionError("no interrupt in 10 s");
            }
        }
        return status(seen++ % 4);
    }

    /** Reads sectors into any memory, waiting. */
    void read(long sector, MemorySegment into) throws InterruptedException {
        long size = into.byteSize();
        var token = transport.mapToken(0);
        long handle = ops.mapPage(token, into, 0, size, Direction.FROM_DEVICE, 0);
        submit(READ, sector, handle, (int) size);
        int status = await();
        ops.unmapPage(token, handle, size, Direction.FROM_DEVICE, 0);
        if (status != 0) {
            throw new AssertionError("status " + status);
        }
    }

    /** Writes sectors from any memory, waiting. */
    void write(long sector, MemorySegment from) throws InterruptedException {
        long size = from.byteSize();
        var token = transport.mapToken(0);
        long handle = ops.mapPage(token, from, 0, size, Direction.TO_DEVICE, 0);
        submit(WRITE, sector, handle, (int) size);
        int status = await();
        ops.unmapPage(token, handle, size, Direction.TO_DEVICE, 0);
        if (status != 0) {
            throw new AssertionError("status " + status);
        }
    }

    /** The capacity in sectors of 512 bytes. */
    long capacity() throws VirtioException {
        byte[] bytes = new byte[8];
        transport.readConfig(0, bytes);
        return MemorySegment.ofArray(bytes).get(ValueLayout.JAVA_LONG_UNALIGNED, 0);
    }

    @Override
    public void queueUsed(int queue) {
        interrupts.release();
    }

    @Override
    public void configChanged() {
        configChanges.release();
    }

    @Override
    public void gone(VirtioException reason) {
        gone = reason;
        goneSignal.release();
    }

    /** Waits for the device to be reported as gone; the reason. */
    String awaitGone() throws InterruptedException {
        if (!goneSignal.tryAcquire(10, TimeUnit.SECONDS)) {
            throw new AssertionError("not reported as gone in 10 s");
        }
        return gone.getMessage();
    }

    @Override
    public void close() {
        ops.free(transport.mapToken(0), memory);
        transport.close();
    }
}
