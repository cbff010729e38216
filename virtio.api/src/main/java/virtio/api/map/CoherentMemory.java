package virtio.api.map;

import java.lang.foreign.MemorySegment;

/**
 * Memory that driver and device see at once, without mapping or synchronisation.
 *
 * @param segment where the driver sees it, native, zeroed, accessible from every thread; once the
 *     region it lies in is unmapped, access throws {@link IllegalStateException}
 * @param mapHandle where the device sees its first byte, never 0
 */
public record CoherentMemory(MemorySegment segment, long mapHandle) {}
