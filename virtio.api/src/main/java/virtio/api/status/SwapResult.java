package virtio.api.status;

/**
 * What a swap did.
 *
 * @param name the device
 * @param from its address before
 * @param to its address now
 * @param pauseNanos from the freeze to the resumption
 */
public record SwapResult(String name, String from, String to, long pauseNanos) {}
