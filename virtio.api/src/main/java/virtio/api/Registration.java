package virtio.api;

import org.osgi.annotation.versioning.ProviderType;

/** That somebody is called, until it is closed. */
@ProviderType
@FunctionalInterface
public interface Registration extends AutoCloseable {
    /** Calls begin no more, but those that have begun may still run; idempotent. */
    @Override
    void close();
}
