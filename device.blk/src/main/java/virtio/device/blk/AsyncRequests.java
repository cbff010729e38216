package virtio.device.blk;

import virtio.api.VirtioException;
import virtio.api.block.BlockQueue;
import virtio.api.block.BlockRequest;

import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * The user of a {@link RequestQueue} behind the calls that return futures. Used with the lock of
 * the request queue held, but for {@link Done#complete}.
 */
final class AsyncRequests {
    private static final int DEPTH = 256;

    private final RequestQueue ring;
    private final BlkQueue queue;
    private final Request[] requests = new Request[DEPTH];
    private final ArrayDeque<Request> overflow = new ArrayDeque<>();

    AsyncRequests(RequestQueue ring) {
        this.ring = ring;
        queue = new BlkQueue(ring, DEPTH);
    }

    /** What was asked for, and whom to tell. */
    record Request(
            CompletableFuture<Void> future,
            int type,
            int flags,
            long offset,
            long length,
            MemorySegment data) {}

    /** A request with its end. */
    record Done(Request request, int result, String device, String gone) {
        /** Tells; runs code of others, so without any lock. */
        void complete() {
            if (result == BlockQueue.OK) {
                request.future.complete(null);
                return;
            }
            String what =
                    switch (request.type) {
                        case BlockRequest.IN -> "read";
                        case BlockRequest.OUT -> "write";
                        case BlockRequest.FLUSH -> "flush";
                        case BlockRequest.DISCARD -> "discard";
                        default -> "write zeroes";
                    };
            String why =
                    switch (result) {
                        case BlockQueue.UNSUPPORTED -> "the device does not support it";
                        case BlockQueue.GONE -> gone;
                        default ->
                                request.data != null && !request.data.scope().isAlive()
                                        ? "its memory was closed"
                                        : "the device reports an I/O error";
                    };
            request.future.completeExceptionally(
                    new VirtioException(
                            "%s: %s of %d bytes at %d failed: %s"
                                    .formatted(device, what, request.length, request.offset, why)));
        }
    }

    BlkQueue queue() {
        return queue;
    }

    boolean idle() {
        return queue.inFlight() == 0;
    }

    void add(Request request) {
        overflow.add(request);
        publish();
    }

    /** What is done, to be told about; makes room for what waits. */
    List<Done> take(List<Done> into) {
        List<Done> list = into;
        for (int r = queue.nextDone(); r >= 0; r = queue.nextDone()) {
            if (list == null) {
                list = new ArrayList<>();
            }
            list.add(new Done(requests[r], queue.result(r), ring.device().name(), ring.gone()));
            requests[r] = null;
            queue.release(r);
        }
        if (list != null) {
            publish();
        }
        return list;
    }

    private void publish() {
        for (Request next = overflow.peek(); next != null; next = overflow.peek()) {
            int r = queue.prepare(next.type, next.flags, next.offset, next.length, next.data, 0);
            if (r < 0) {
                break;
            }
            requests[r] = next;
            overflow.remove();
        }
        queue.publish();
    }
}
