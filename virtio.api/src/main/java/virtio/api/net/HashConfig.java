package virtio.api.net;

import java.util.List;
import java.util.Set;

/**
 * How a device hashes received packets, by Toeplitz' function, and which queue pair gets them by
 * their hash (virtio 5.1.6.5.6.4 and 5.1.6.5.7). Immutable.
 *
 * @param types what is hashed, the most detailed type first; none switches hashing off
 * @param key secret of the function, 40 bytes at most with any device; longer than 40 it changes
 *     nothing
 * @param table queue pairs by the low bits of the hash: a power of two of them, 128 at most with
 *     any device; empty to have packets spread evenly, or as the device likes where it has no
 *     {@link NetFeature#RSS}
 * @param unclassified queue pair of packets that have no hash; used where there is a table
 */
public record HashConfig(Set<HashType> types, byte[] key, List<Integer> table, int unclassified) {
    /** Copies, so that nobody changes it. */
    public HashConfig {
        types = Set.copyOf(types);
        key = key.clone();
        table = List.copyOf(table);
    }

    /** Hashes for who reads {@link PacketBuffer#hash}, without a table. */
    public HashConfig(Set<HashType> types, byte[] key) {
        this(types, key, List.of(), 0);
    }

    /** A copy. */
    @Override
    public byte[] key() {
        return key.clone();
    }

    /** Without the key, which is a secret. */
    @Override
    public String toString() {
        return "%s, key of %d bytes, table %s, unclassified %d"
                .formatted(types, key.length, table, unclassified);
    }
}
