package virtio.backend.net;

import java.util.ArrayList;
import java.util.List;

/** What one thread that sends needs; used by one thread at a time, made once and reused. */
final class Sender {
    /** What is being sent. */
    final Frame frame = new Frame();

    /** For a port that needs the frame otherwise. */
    final Frame other = new Frame();

    final Segmentation segmentation = new Segmentation();

    /** Queues that got something and have not been told. */
    private final List<ReceiveQueue> told = new ArrayList<>();

    void tell(ReceiveQueue queue) {
        if (queue.mark()) {
            told.add(queue);
        }
    }

    /** At the end of a burst: has the queues served that got something. */
    void flush() {
        for (int i = 0; i < told.size(); i++) {
            told.get(i).schedule();
        }
        told.clear();
    }
}
