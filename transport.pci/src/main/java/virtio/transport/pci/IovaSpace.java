package virtio.transport.pci;

import java.util.Map;
import java.util.TreeMap;

/**
 * The addresses that devices of one IOMMU domain may be given: the aperture without what the
 * platform keeps for itself, such as the window of message-signalled interrupts.
 *
 * <p>Thread-safe.
 */
final class IovaSpace {
    /** Nothing is handed out below, so that no handle is 0 and small numbers fault. */
    static final long LOWEST = 2 << 20;

    /** Nor above: handles are positive, and sums of them too. */
    static final long HIGHEST = (1L << 62) - 1;

    /** Length by start. */
    private final TreeMap<Long, Long> free = new TreeMap<>();

    /**
     * Adds a usable range.
     *
     * @param start its first address, unsigned
     * @param end its last address, unsigned
     */
    synchronized void add(long start, long end) {
        long from = Long.compareUnsigned(start, LOWEST) < 0 ? LOWEST : start;
        long to = Long.compareUnsigned(end, HIGHEST) > 0 ? HIGHEST : end;
        if (Long.compareUnsigned(from, to) < 0) {
            free.put(from, to - from + 1);
        }
    }

    /** Takes addresses; -1 when there are not as many in a row. */
    synchronized long take(long bytes, long alignment) {
        for (Map.Entry<Long, Long> piece : free.entrySet()) {
            long start = piece.getKey();
            long at = start + alignment - 1 & -alignment;
            long rest = start + piece.getValue() - at - bytes;
            if (rest >= 0) {
                free.remove(start);
                if (at > start) {
                    free.put(start, at - start);
                }
                if (rest > 0) {
                    free.put(at + bytes, rest);
                }
                return at;
            }
        }
        return -1;
    }

    /** Gives back what {@link #take} gave. */
    synchronized void give(long at, long bytes) {
        long start = at;
        long length = bytes;
        Map.Entry<Long, Long> before = free.lowerEntry(at);
        if (before != null && before.getKey() + before.getValue() == at) {
            start = before.getKey();
            length += before.getValue();
        }
        Long after = free.remove(at + bytes);
        free.put(start, after == null ? length : length + after);
    }

    /** As {@code 0x200000-0xfedfffff 0xfef00000-0x7fffffffff}. */
    @Override
    public synchronized String toString() {
        StringBuilder text = new StringBuilder();
        free.forEach(
                (start, length) ->
                        text.append(text.isEmpty() ? "" : " ")
                                .append("0x%x-0x%x".formatted(start, start + length - 1)));
        return text.toString();
    }
}
