package virtio.api.transport;

/**
 * Something that could be attached.
 *
 * @param address whole, as {@code mmio:emu0}
 * @param description for people
 * @param unavailable why it cannot be attached, and what to do; null when it can
 */
public record Candidate(String address, String description, String unavailable) {}
