package virtio.api.net;

import java.util.List;
import java.util.Map;

/**
 * What went through a card since it was attached, over all transports it had.
 *
 * @param queues by queue pair
 */
public record NetStatistics(List<Pair> queues) {
    /**
     * One queue pair.
     *
     * @param receivedFrames frames received and good
     * @param receivedBytes their bytes
     * @param sentFrames frames given to the device
     * @param sentBytes their bytes
     * @param badHashes hashes ignored, as the device said to have hashed what there is no name for
     * @param noBuffers times the receive queue could not be filled, as consumers held all buffers
     * @param dropped frames dropped, by reason; reasons that never occurred are left out
     */
    public record Pair(
            long receivedFrames,
            long receivedBytes,
            long sentFrames,
            long sentBytes,
            long badHashes,
            long noBuffers,
            Map<DropReason, Long> dropped) {
        /** All frames dropped. */
        public long droppedFrames() {
            return dropped.values().stream().mapToLong(Long::longValue).sum();
        }
    }
}
