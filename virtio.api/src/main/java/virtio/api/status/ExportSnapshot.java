package virtio.api.status;

/**
 * A backend that is offered at an address.
 *
 * @param backend its description, as {@code ram:64MiB}
 * @param address where, as {@code mmio:emu0}
 * @param deviceType a constant of {@link virtio.api.DeviceType}; 0 while unknown
 * @param driver who drives it, for people; null when nobody does
 * @param reason why it is not offered now; null when it is
 */
public record ExportSnapshot(
        String backend, String address, int deviceType, String driver, String reason) {}
