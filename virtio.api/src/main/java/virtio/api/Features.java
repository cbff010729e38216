package virtio.api;

import java.util.Arrays;
import java.util.BitSet;
import java.util.stream.IntStream;

/** An immutable set of feature bits without an upper limit (virtio 2.2 Feature Bits). */
public final class Features {
    /** No features. */
    public static final Features NONE = new Features(new BitSet());

    private final BitSet bits;

    private Features(BitSet bits) {
        this.bits = bits;
    }

    /** The set of these bit numbers, each 0 or more. */
    public static Features of(int... bits) {
        BitSet set = new BitSet();
        for (int bit : bits) {
            set.set(bit);
        }
        return new Features(set);
    }

    /** Bits 0 to 63 from the first word, 64 to 127 from the second, and so on. */
    public static Features ofWords(long... words) {
        return new Features(BitSet.valueOf(words));
    }

    /** Bits {@code 64 * index} to {@code 64 * index + 63}. */
    public long word(int index) {
        long[] words = bits.toLongArray();
        return index < words.length ? words[index] : 0;
    }

    /** Whether the bit is in the set. */
    public boolean has(int bit) {
        return bits.get(bit);
    }

    /** This set and the given bits. */
    public Features with(int... more) {
        return or(of(more));
    }

    /** This set less the given bits. */
    public Features without(int... less) {
        return andNot(of(less));
    }

    /** What is in both. */
    public Features and(Features other) {
        BitSet set = (BitSet) bits.clone();
        set.and(other.bits);
        return new Features(set);
    }

    /** What is in either. */
    public Features or(Features other) {
        BitSet set = (BitSet) bits.clone();
        set.or(other.bits);
        return new Features(set);
    }

    /** What is here and not in the other. */
    public Features andNot(Features other) {
        BitSet set = (BitSet) bits.clone();
        set.andNot(other.bits);
        return new Features(set);
    }

    /** Whether no bit is set. */
    public boolean isEmpty() {
        return bits.isEmpty();
    }

    /** The bit numbers, ascending. */
    public IntStream stream() {
        return bits.stream();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Features f && bits.equals(f.bits);
    }

    @Override
    public int hashCode() {
        return bits.hashCode();
    }

    /** Bit numbers, as {@code {5, 28, 32}}. */
    @Override
    public String toString() {
        return Arrays.toString(bits.stream().toArray()).replace('[', '{').replace(']', '}');
    }
}
