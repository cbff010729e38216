package virtio.api;

import org.osgi.annotation.versioning.ProviderType;

/**
 * A device's configuration space, little-endian (virtio 2.5 Device Configuration Space).
 *
 * <p>A read is repeated until the generation is the same before and after it, a bounded number of
 * times; a device whose generation never settles is an error that says so. Offsets beyond what the
 * device has are an error naming offset and size. Thread-safe.
 */
@ProviderType
public interface ConfigSpace {
    /** An 8-bit field, unsigned. */
    int read8(int offset) throws VirtioException;

    /** A 16-bit field, unsigned. */
    int read16(int offset) throws VirtioException;

    /** A 32-bit field, as its 32 bits. */
    int read32(int offset) throws VirtioException;

    /** A 64-bit field. */
    long read64(int offset) throws VirtioException;

    /** Bytes from {@code offset}, all of one generation. */
    void read(int offset, byte[] into) throws VirtioException;

    /** Writes an 8-bit field. */
    void write8(int offset, int value) throws VirtioException;

    /** Writes a 16-bit field. */
    void write16(int offset, int value) throws VirtioException;

    /** Writes a 32-bit field. */
    void write32(int offset, int value) throws VirtioException;
}
