package virtio.tck;

import virtio.api.DeviceStatus;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.map.MapToken;
import virtio.api.transport.QueueLayout;
import virtio.api.transport.Transport;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * A driver end with a device in memory that serves split virtqueues when the test says so, and
 * misbehaves as the test says.
 *
 * <p>For who writes a core or a driver. Has no threads: {@link #serve}, {@link #interrupt}, {@link
 * #changeConfig} and {@link #vanish} are the device, on the thread of the caller. Not thread-safe.
 */
public final class RogueTransport implements Transport {
    /** What the device does with a buffer. */
    @FunctionalInterface
    public interface Server {
        /**
         * Serves one buffer.
         *
         * @param readable elements that the device may read
         * @param writable elements that it may write
         * @return bytes written, from the start of the first writable element
         */
        long serve(int queue, List<MemorySegment> readable, List<MemorySegment> writable);
    }

    private static final ValueLayout.OfShort U16 =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfInt U32 =
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong U64 =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final int NEXT = 1;
    private static final int WRITE = 2;
    private static final int INDIRECT = 4;
    private static final int DESCRIPTOR_BYTES = 16;

    private static final class Queue {
        QueueLayout layout;
        int available;
        int used;
        int notifications;
    }

    private final CopyingMapOps ops;
    private final int deviceType;
    private final Features offered;
    private final int maxQueueSize;
    private final byte[] config;
    private final Server server;
    private final Queue[] queues;
    private Misbehaviour misbehaviour = Misbehaviour.NONE;
    private int goneAtCall = Integer.MAX_VALUE;
    private int calls;
    private int status;
    private int generation;
    private boolean closed;
    private VirtioException gone;
    private Features accepted = Features.NONE;
    private Listener listener;

    /**
     * A device that behaves.
     *
     * @param ops through which it sees the driver's memory
     * @param deviceType a constant of {@link virtio.api.DeviceType}
     * @param offered its features, less those of packed rings
     * @param queueCount number of queues
     * @param maxQueueSize most descriptors of each
     * @param config its configuration
     * @param server what it does
     */
    public RogueTransport(
            CopyingMapOps ops,
            int deviceType,
            Features offered,
            int queueCount,
            int maxQueueSize,
            byte[] config,
            Server server) {
        this.ops = ops;
        this.deviceType = deviceType;
        this.offered = offered.without(Feature.RING_PACKED, Feature.IN_ORDER);
        this.maxQueueSize = maxQueueSize;
        this.config = config.clone();
        this.server = server;
        queues = new Queue[queueCount];
        for (int i = 0; i < queueCount; i++) {
            queues[i] = new Queue();
        }
    }

    /** How to behave from here on. */
    public void misbehave(Misbehaviour how) {
        misbehaviour = how;
    }

    /** Has the device vanish at a control call, 0 being the next one. */
    public void vanishAtCall(int fromNow) {
        goneAtCall = calls + fromNow;
    }

    /** Control calls so far. */
    public int calls() {
        return calls;
    }

    /** Whether {@link #close} was called. */
    public boolean isClosed() {
        return closed;
    }

    /** What the driver accepted. */
    public Features accepted() {
        return accepted;
    }

    /** How often the driver notified a queue. */
    public int notifications(int queue) {
        return queues[queue].notifications;
    }

    /** The device disappears: the listener hears of it, and control calls fail. */
    public void vanish() {
        if (gone == null) {
            gone = new VirtioException("the device vanished, as the test wanted");
            if (listener != null) {
                listener.gone(gone);
            }
        }
    }

    /** Used buffer notification. */
    public void interrupt(int queue) {
        listener.queueUsed(queue);
    }

    /** Changes a byte of the configuration, and says so. */
    public void changeConfig(int offset, int value) {
        config[offset] = (byte) value;
        generation++;
        if (listener != null) {
            listener.configChanged();
        }
    }

    private void call() throws VirtioException {
        if (calls++ >= goneAtCall) {
            vanish();
        }
        if (gone != null) {
            throw gone;
        }
        if (closed) {
            throw new VirtioException("the transport is closed");
        }
    }

    @Override
    public int deviceType() throws VirtioException {
        call();
        return deviceType;
    }

    @Override
    public Features offered() throws VirtioException {
        call();
        return offered;
    }

    @Override
    public void accept(Features features) throws VirtioException {
        call();
        accepted = features;
    }

    @Override
    public int status() throws VirtioException {
        call();
        return switch (misbehaviour) {
            case STATUS_NEVER_SET -> 0;
            case FEATURES_OK_NEVER_SET -> status & ~DeviceStatus.FEATURES_OK;
            default -> status;
        };
    }

    @Override
    public void status(int value) throws VirtioException {
        call();
        if (value != 0) {
            status |= value;
        } else {
            for (Queue queue : queues) {
                queue.layout = null;
            }
            if (misbehaviour != Misbehaviour.RESET_NEVER_DONE) {
                status = 0;
                accepted = Features.NONE;
            }
        }
    }

    @Override
    public int configGeneration() throws VirtioException {
        call();
        if (misbehaviour == Misbehaviour.GENERATION_NEVER_SETTLES) {
            generation++;
        }
        return generation;
    }

    @Override
    public void readConfig(int offset, byte[] into) throws VirtioException {
        call();
        within(offset, into.length);
        System.arraycopy(config, offset, into, 0, into.length);
    }

    @Override
    public void writeConfig(int offset, byte[] from) throws VirtioException {
        call();
        within(offset, from.length);
        System.arraycopy(from, 0, config, offset, from.length);
    }

    private void within(int offset, int length) throws VirtioException {
        if (offset < 0 || length > config.length - offset) {
            throw new VirtioException(
                    "%d configuration bytes at %d, of %d".formatted(length, offset, config.length));
        }
    }

    @Override
    public int maxQueueSize(int queue) throws VirtioException {
        call();
        return queue < queues.length ? maxQueueSize : 0;
    }

    @Override
    public MapToken mapToken(int queue) {
        return ops.token();
    }

    @Override
    public void startQueue(int queue, QueueLayout layout) throws VirtioException {
        call();
        Queue started = new Queue();
        started.layout = layout;
        queues[queue] = started;
    }

    @Override
    public boolean stopQueue(int queue) throws VirtioException {
        call();
        if (!accepted.has(Feature.RING_RESET)) {
            return false;
        }
        queues[queue].layout = null;
        return true;
    }

    @Override
    public void notifyQueue(int queue, int data) {
        queues[queue].notifications++;
    }

    @Override
    public void listen(Listener listener) {
        this.listener = listener;
        if (gone != null) {
            listener.gone(gone);
        }
    }

    @Override
    public void close() {
        closed = true;
    }

    /**
     * Serves all that a queue has available, without an interrupt; the first buffer suffers from
     * the misbehaviour.
     *
     * @return buffers served; 0 also when the queue is not started
     */
    public int serve(int index) {
        Queue queue = queues[index];
        if (queue.layout == null) {
            return 0;
        }
        int size = queue.layout.size();
        MemorySegment available = ops.device(queue.layout.driverArea(), 6 + 2L * size);
        MemorySegment used = ops.device(queue.layout.deviceArea(), 6 + 8L * size);
        int count = 0;
        while ((available.get(U16, 2) & 0xffff) != queue.available) {
            int head = available.get(U16, 4 + 2L * (queue.available % size)) & 0xffff;
            queue.available = queue.available + 1 & 0xffff;
            use(queue, used, head, serve(index, queue, head));
            count++;
        }
        if (accepted.has(Feature.EVENT_IDX)) {
            used.set(U16, 4 + 8L * size, (short) queue.available);
        }
        return count;
    }

    private long serve(int index, Queue queue, int head) {
        List<MemorySegment> readable = new ArrayList<>();
        List<MemorySegment> writable = new ArrayList<>();
        int size = queue.layout.size();
        chain(
                ops.device(queue.layout.descriptorArea(), (long) DESCRIPTOR_BYTES * size),
                head,
                readable,
                writable);
        long written = server.serve(index, readable, writable);
        if (misbehaviour == Misbehaviour.LENGTH_TOO_LONG) {
            written = writable.stream().mapToLong(MemorySegment::byteSize).sum() + 1;
        }
        return written;
    }

    private void chain(
            MemorySegment table,
            int first,
            List<MemorySegment> readable,
            List<MemorySegment> writable) {
        int flags = NEXT;
        for (int at = first; (flags & NEXT) != 0; ) {
            long descriptor = (long) DESCRIPTOR_BYTES * at;
            flags = table.get(U16, descriptor + 12);
            int length = table.get(U32, descriptor + 8);
            MemorySegment element = ops.device(table.get(U64, descriptor), length);
            if ((flags & INDIRECT) != 0) {
                chain(element, 0, readable, writable);
            } else {
                ((flags & WRITE) != 0 ? writable : readable).add(element);
            }
            at = table.get(U16, descriptor + 14) & 0xffff;
        }
    }

    private void use(Queue queue, MemorySegment used, int head, long written) {
        int size = queue.layout.size();
        int id = head;
        int step = 1;
        switch (misbehaviour) {
            case USED_ID_OUT_OF_RANGE -> id = size;
            case USED_ID_NOT_AVAILABLE -> id = head ^ size - 1;
            case INDEX_JUMPS -> step = size + 1;
            default -> {}
        }
        if (step != 1 || id != head || misbehaviour == Misbehaviour.LENGTH_TOO_LONG) {
            misbehaviour = Misbehaviour.NONE;
        }
        long element = 4 + 8L * (queue.used % size);
        used.set(U32, element, id);
        used.set(U32, element + 4, (int) written);
        queue.used = queue.used + step & 0xffff;
        // What was written before it, the driver sees before it.
        VarHandle.releaseFence();
        used.set(U16, 2, (short) queue.used);
    }
}
