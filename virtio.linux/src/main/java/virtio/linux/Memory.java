package virtio.linux;

import java.lang.foreign.MemorySegment;

/** Native memory by address. */
public final class Memory {
    /**
     * All memory, with no bounds and no lifetime: offset equals address.
     *
     * <p>For rings only, whose own state range-checks every index and length that the far side can
     * write; a wrong address here ends the process. As a constant it compiles to plain loads and
     * stores, which a segment held in an instance field does not.
     */
    @SuppressWarnings("restricted")
    public static final MemorySegment ALL = MemorySegment.NULL.reinterpret(Long.MAX_VALUE);

    /** Bytes of an ordinary page: 4096 on x86-64, and what the kernel was built with on aarch64. */
    public static final int PAGE_BYTES = LibC.getpagesize();

    private Memory() {}

    /**
     * The checked counterpart of {@link #ALL}: {@code byteSize} bytes at {@code address}, bounds
     * checked, lifetime not.
     *
     * @throws IllegalArgumentException when the range is not one of positive addresses
     */
    @SuppressWarnings("restricted")
    public static MemorySegment of(long address, long byteSize) {
        if (address <= 0 || byteSize < 0 || address > Long.MAX_VALUE - byteSize) {
            throw new IllegalArgumentException(
                    "no memory range: %d bytes at 0x%x".formatted(byteSize, address));
        }
        return MemorySegment.ofAddress(address).reinterpret(byteSize);
    }
}
