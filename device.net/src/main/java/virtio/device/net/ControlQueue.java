package virtio.device.net;

import virtio.api.ScatterList;
import virtio.api.VirtioException;
import virtio.api.Virtqueue;
import virtio.api.map.CoherentMemory;
import virtio.api.net.NetControl;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * The control queue (virtio 5.1.6.5): one command at a time, answered before the next.
 *
 * <pre>
 * 0       1         2               ACK - reply   ACK
 * | class | command | data ... |    | reply ...   | ack |
 * </pre>
 */
final class ControlQueue {
    private static final int DATA = 2;

    /** Room for a filter of over 600 addresses. */
    private static final int MAX_BYTES = 4087;

    /** Behind the longest command and reply. */
    private static final int ACK = 4095;

    private static final long TIMEOUT_MILLIS = 5000;

    /** No device answers with it. */
    private static final byte NO_ACK = (byte) 0xFF;

    private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

    private final String name;
    private final Virtqueue vq;
    private final CoherentMemory memory;
    private final ScatterList elements = new ScatterList(2);
    private String dead;

    /** On a queue that nobody else uses. */
    ControlQueue(String name, Virtqueue vq) throws VirtioException {
        this.name = name;
        this.vq = vq;
        memory = vq.mapping().alloc(ACK + 1);
        if (memory == null) {
            throw new VirtioException(
                    "%s: no room for %d bytes of commands".formatted(name, ACK + 1));
        }
        vq.disableCallback();
    }

    /** Gives the memory back; the device is reset. */
    void close() {
        vq.mapping().free(memory);
    }

    /** Has the device do something; otherwise as {@link #ask}. */
    void command(String what, int commandClass, int command, byte[] data) throws VirtioException {
        ask(what, commandClass, command, data, 0);
    }

    /**
     * Has the device do something and fill in a reply; waits by polling.
     *
     * @param replyBytes 0 to 8
     * @throws VirtioException when it refuses, does not answer, or the data is too long
     */
    synchronized byte[] ask(String what, int commandClass, int command, byte[] data, int replyBytes)
            throws VirtioException {
        if (data.length > MAX_BYTES - DATA) {
            throw new VirtioException(
                    "%s: %s with %d bytes, the limit is %d"
                            .formatted(name, what, data.length, MAX_BYTES - DATA));
        }
        if (dead != null) {
            throw new VirtioException(dead);
        }
        MemorySegment m = memory.segment();
        m.set(BYTE, 0, (byte) commandClass);
        m.set(BYTE, 1, (byte) command);
        MemorySegment.copy(data, 0, m, BYTE, DATA, data.length);
        m.asSlice(ACK - replyBytes, replyBytes).fill((byte) 0);
        m.set(BYTE, ACK, NO_ACK);
        elements.clear();
        elements.outMapped(memory.mapHandle(), DATA + data.length);
        elements.inMapped(memory.mapHandle() + ACK - replyBytes, replyBytes + 1);
        boolean added = vq.add(elements, 0) && vq.kick();
        long start = System.nanoTime();
        while (added && vq.get() == Virtqueue.NONE && vq.broken() == null) {
            if (System.nanoTime() - start > TimeUnit.MILLISECONDS.toNanos(TIMEOUT_MILLIS)) {
                dead =
                        "%s: the device did not answer %s within %d ms"
                                .formatted(name, what, TIMEOUT_MILLIS);
                throw new VirtioException(dead);
            }
            LockSupport.parkNanos(20_000);
        }
        if (!added || vq.broken() != null) {
            throw new VirtioException("%s: %s failed: %s".formatted(name, what, vq.broken()));
        }
        byte[] reply = m.asSlice(ACK - replyBytes, replyBytes).toArray(BYTE);
        byte ack = m.get(BYTE, ACK);
        if (ack != NetControl.OK) {
            throw new VirtioException(
                    "%s: the device refuses %s (%d)".formatted(name, what, ack & 0xFF));
        }
        return reply;
    }
}
