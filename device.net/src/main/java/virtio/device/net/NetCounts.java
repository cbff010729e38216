package virtio.device.net;

import virtio.api.net.DropReason;
import virtio.api.net.NetStatistics;

import java.util.EnumMap;
import java.util.Map;

/** What went through a queue pair; used with its lock held. */
final class NetCounts {
    long receivedFrames;
    long receivedBytes;
    long sentFrames;
    long sentBytes;
    long badHashes;
    long noBuffers;
    private final long[] dropped = new long[DropReason.values().length];

    void drop(DropReason reason, int frames) {
        dropped[reason.ordinal()] += frames;
    }

    NetStatistics.Pair snapshot() {
        Map<DropReason, Long> drops = new EnumMap<>(DropReason.class);
        for (DropReason reason : DropReason.values()) {
            if (dropped[reason.ordinal()] != 0) {
                drops.put(reason, dropped[reason.ordinal()]);
            }
        }
        return new NetStatistics.Pair(
                receivedFrames, receivedBytes, sentFrames, sentBytes, badHashes, noBuffers, drops);
    }
}
