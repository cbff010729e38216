package virtio.transport.pci;

import java.util.BitSet;
import java.util.function.IntConsumer;

/**
 * The MSI-X table and pending bits of an emulated function, as in a BAR of theirs (PCI 3.0, 6.8.2).
 *
 * <pre>
 * | entry 0: address low, address high, data, control | entry 1 | ... | pending bits, 64 a word |
 * </pre>
 *
 * <p>Thread-safe; {@link #send} allocates nothing.
 */
final class MsixTable {
    private static final int WORDS = PciRegisters.MSIX_ENTRY_BYTES / 4;
    private static final int DATA = 2;
    private static final int CONTROL = 3;
    private static final int MASKED = 1;

    private final int vectors;
    private final int[] words;
    private final BitSet pending;
    private final IntConsumer message;
    private boolean enabled;
    private boolean maskedAll;

    /**
     * A table with all entries masked.
     *
     * @param message where a message's data goes
     */
    MsixTable(int vectors, IntConsumer message) {
        this.vectors = vectors;
        this.message = message;
        words = new int[vectors * WORDS];
        pending = new BitSet(vectors);
        reset();
    }

    /** Offset of the pending bits. */
    int pendingOffset() {
        return (vectors * PciRegisters.MSIX_ENTRY_BYTES + 7) & -8;
    }

    int bytes() {
        return pendingOffset() + (vectors + 63) / 64 * 8;
    }

    synchronized void reset() {
        for (int vector = 0; vector < vectors; vector++) {
            words[vector * WORDS + CONTROL] = MASKED;
        }
        pending.clear();
        enabled = false;
        maskedAll = false;
    }

    synchronized boolean enabled() {
        return enabled;
    }

    synchronized int control() {
        return vectors - 1
                | (maskedAll ? PciRegisters.MSIX_MASK_ALL : 0)
                | (enabled ? PciRegisters.MSIX_ENABLE : 0);
    }

    void control(int value) {
        synchronized (this) {
            enabled = (value & PciRegisters.MSIX_ENABLE) != 0;
            maskedAll = (value & PciRegisters.MSIX_MASK_ALL) != 0;
        }
        sendPending();
    }

    synchronized int read(int offset) {
        if (offset < words.length * 4) {
            return words[offset / 4];
        }
        int first = (offset - pendingOffset()) * 8;
        int bits = 0;
        for (int i = 0; i < 32 && first >= 0 && first + i < vectors; i++) {
            bits |= pending.get(first + i) ? 1 << i : 0;
        }
        return bits;
    }

    /** Writes the table; pending bits are not the driver's to write. */
    void write(int offset, int value) {
        synchronized (this) {
            if (offset >= words.length * 4) {
                return;
            }
            boolean control = offset / 4 % WORDS == CONTROL;
            words[offset / 4] = control ? value & MASKED : value;
        }
        sendPending();
    }

    private void sendPending() {
        for (int vector = 0; vector < vectors; vector++) {
            boolean due;
            synchronized (this) {
                due = pending.get(vector) && deliverable(vector);
                if (due) {
                    pending.clear(vector);
                }
            }
            if (due) {
                // Whoever unmasked it is no thread to run a handler on.
                int delayed = vector;
                Thread.ofPlatform()
                        .daemon()
                        .name("virtio-pci vector " + vector)
                        .start(() -> send(delayed));
            }
        }
    }

    private boolean deliverable(int vector) {
        return enabled && !maskedAll && (words[vector * WORDS + CONTROL] & MASKED) == 0;
    }

    /** Sends the vector's message, or remembers that it is due. */
    void send(int vector) {
        int data;
        synchronized (this) {
            if (!enabled) {
                return;
            }
            if (!deliverable(vector)) {
                pending.set(vector);
                return;
            }
            data = words[vector * WORDS + DATA];
        }
        message.accept(data);
    }
}
