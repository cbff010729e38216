package virtio.backend.net;

import virtio.api.Features;
import virtio.api.net.NetFeature;
import virtio.api.net.NetHeader;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** A card that receives what it sends, and its driver's end of all queues. */
final class FakeCard implements AutoCloseable {
    private static final int BUFFER = 70_000;

    final NetBackend backend;
    final FakeQueue[] queues;
    final FakeQueue control;
    final int headerBytes;

    /** With these features not accepted. */
    FakeCard(String spec, int... without) throws Exception {
        NetSpec parsed = NetSpec.parse(spec);
        backend =
                new NetBackend(
                        parsed,
                        new Link() {
                            @Override
                            public void send(Port from, Sender sender) {
                                from.deliver(sender);
                            }

                            @Override
                            public void leave(Port port) {}
                        },
                        false);
        Features features = backend.offered().without(without);
        backend.accepted(features);
        headerBytes = features.has(NetFeature.HASH_REPORT) ? NetHeader.HASH_BYTES : NetHeader.BYTES;
        queues = new FakeQueue[2 * parsed.pairs()];
        for (int i = 0; i < queues.length; i++) {
            queues[i] = new FakeQueue(backend, i);
        }
        control = new FakeQueue(backend, queues.length);
    }

    static ByteBuffer data(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** Whether the device does it. */
    boolean command(int commandClass, int command, byte[] data) throws Exception {
        return ask(commandClass, command, data, 0) != null;
    }

    /** What the device writes before its answer; null when it refuses. */
    byte[] ask(int commandClass, int command, byte[] data, int replyBytes) throws Exception {
        byte[] out = new byte[2 + data.length];
        out[0] = (byte) commandClass;
        out[1] = (byte) command;
        System.arraycopy(data, 0, out, 2, data.length);
        FakeQueue.Buffer buffer = new FakeQueue.Buffer(out, replyBytes + 1);
        control.available.add(buffer);
        control.serve();
        int ack = buffer.in[replyBytes];
        if (ack != 0 && ack != 1) {
            throw new AssertionError("answer " + ack);
        }
        return ack == 0 ? Arrays.copyOf(buffer.in, replyBytes) : null;
    }

    /** Sends a frame through the first transmit queue, a receive buffer waiting in each pair. */
    void send(byte[] header, byte[] frame) throws Exception {
        for (int i = 0; i < queues.length; i += 2) {
            while (queues[i].available.size() < 2) {
                queues[i].available.add(new FakeQueue.Buffer(new byte[0], BUFFER));
            }
        }
        byte[] out = Arrays.copyOf(header, headerBytes + frame.length);
        System.arraycopy(frame, 0, out, headerBytes, frame.length);
        queues[1].available.add(new FakeQueue.Buffer(out, 0));
        queues[1].serve();
        for (int i = 0; i < queues.length; i += 2) {
            if (queues[i].scheduled.tryAcquire()) {
                queues[i].serve();
            }
        }
    }

    /** The queue pair that got the only frame there is, with what it got; then forgotten. */
    Received received() {
        Received found = null;
        for (int i = 0; i < queues.length; i += 2) {
            for (FakeQueue.Buffer buffer : queues[i].used) {
                if (found != null) {
                    throw new AssertionError("more than one frame");
                }
                byte[] bytes = buffer.bytes();
                byte[] frame = Arrays.copyOfRange(bytes, headerBytes, bytes.length);
                ByteBuffer header = ByteBuffer.wrap(bytes, 0, headerBytes);
                found = new Received(i / 2, header.order(ByteOrder.LITTLE_ENDIAN), frame);
            }
            queues[i].used.clear();
        }
        return found;
    }

    record Received(int pair, ByteBuffer header, byte[] frame) {
        int hash() {
            return header.getInt(NetHeader.HASH_VALUE);
        }

        int report() {
            return header.getShort(NetHeader.HASH_TYPE);
        }
    }

    @Override
    public void close() {
        backend.close();
    }
}
