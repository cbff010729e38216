package virtio.ring;

import virtio.api.Features;
import virtio.api.status.DeviceSnapshot;
import virtio.api.status.DeviceSnapshot.State;

import java.util.List;

/** What the steps of a device show to others; read without stopping them. */
record DeviceView(
        State state,
        String reason,
        int deviceType,
        LiveDevice live,
        BoundDriver driver,
        long frozenNanos,
        int swaps,
        long lastPauseNanos) {

    DeviceSnapshot snapshot(String name, String address) {
        boolean bound = live != null;
        boolean abandoned = state == State.FROZEN && driver.isAbandoned();
        return new DeviceSnapshot(
                name,
                address,
                abandoned ? State.ABANDONED : state,
                reason,
                deviceType,
                bound ? live.transport().lastStatus() : 0,
                bound ? live.negotiation().offered() : Features.NONE,
                bound ? live.negotiation().wanted() : Features.NONE,
                bound ? live.negotiation().accepted() : Features.NONE,
                driver != null ? driver.service().bundle() : null,
                bound ? live.transport().service().bundle() : null,
                bound ? live.snapshot() : List.of(),
                swaps,
                lastPauseNanos);
    }
}
