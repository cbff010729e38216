package virtio.api.backend;

import org.osgi.annotation.versioning.ConsumerType;

import virtio.api.VirtioException;

/** Opens backends of one kind; a service. Thread-safe. */
@ConsumerType
public interface BackendProvider {
    /** The part of a backend's description before the first colon, as {@code ram}. */
    String name();

    /**
     * Opens a backend.
     *
     * @param spec the part of the description behind the first colon, as {@code 64MiB}
     * @throws VirtioException when it makes no sense or cannot be had, in one sentence
     */
    Backend open(String spec) throws VirtioException;
}
