package virtio.api.net;

import org.osgi.annotation.versioning.ProviderType;

import java.lang.foreign.MemorySegment;

/** A frame in a pooled buffer, with its offload metadata (virtio 5.1.6). Not thread-safe. */
@ProviderType
public interface PacketBuffer {
    /** The whole buffer; the frame lies at {@link #offset}. */
    MemorySegment segment();

    /** Where the frame begins, in bytes. */
    int offset();

    /** Bytes of the frame. */
    int length();

    /** Says where the frame lies, before it is sent. */
    void frame(int offset, int length);

    /** Whether the checksum from {@link #checksumStart} is yet to be filled in. */
    boolean needsChecksum();

    /** Whether the device has verified the checksum. */
    boolean checksumValid();

    /** Where checksumming begins, in bytes from the frame's start. */
    int checksumStart();

    /** Where the checksum is stored, in bytes from {@link #checksumStart}. */
    int checksumOffset();

    /** Asks for a checksum to be filled in. */
    void requestChecksum(int start, int offset);
}
