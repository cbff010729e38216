package virtio.api.map;

import org.osgi.annotation.versioning.ConsumerType;

/**
 * What a transport's map operations know a device or a queue by; {@code union virtio_map} of Linux.
 *
 * <p>Opaque to everybody but the {@link MapOps} of the transport that made it, and handed back to
 * them unchanged.
 */
@ConsumerType
public interface MapToken {}
