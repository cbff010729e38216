package virtio.transport.pci;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.VirtioException;
import virtio.tck.TestDevice;

import java.util.Map;

/** What is found in the capabilities of a function that lies about them. */
class CapabilitiesTest {
    private final RogueFunction function =
            new RogueFunction(new EmulatedFunction("pci:test", new TestDevice(3, 32), 4, () -> {}));

    @AfterEach
    void close() {
        function.honest.close();
    }

    private Capabilities valid() {
        try {
            return Capabilities.of("pci:test", function);
        } catch (VirtioException e) {
            throw new AssertionError(e);
        }
    }

    private String refused() {
        String message =
                assertThrows(VirtioException.class, () -> Capabilities.of("pci:test", function))
                        .getMessage();
        assertTrue(message.startsWith("pci:test"), message);
        return message;
    }

    @Test
    @Tag("DRV-PCI-008")
    void firstOfSeveralStructuresIsUsed() {
        int common = function.capability(1);
        int access = function.capability(5);
        // Turned into a second common configuration, far from the first one.
        function.show(access + 3, 1, 1);
        function.show(access + 4, 1, 0);
        function.show(access + 8, 4, 0x800);
        function.show(access + 12, 4, 60);
        assertEquals(0, valid().common().offset());
        function.show(common + 4, 1, 3);
        assertEquals(0x800, valid().common().offset());
    }

    @Test
    @Tag("DRV-PCI-007")
    @Tag("DRV-PCI-009")
    @Tag("DRV-PCI-010")
    @Tag("DRV-PCI-012")
    void structuresThatCannotBeAreNamed() {
        int common = function.capability(1);
        int[][] bad = {
            {common + 4, 1, 6}, {common + 4, 1, 255}, {common + 4, 1, 3},
            {common + 8, 4, 2}, {common + 8, 4, -64}, {common + 12, 4, 55},
            {common + 12, 4, -1}, {common + 12, 4, 0}, {common + 2, 1, 15},
            {common + 2, 1, 255}, {common + 3, 1, 0}, {common + 3, 1, 77},
        };
        for (int[] change : bad) {
            int before = function.readConfig(change[0], change[1]);
            function.show(change[0], change[1], change[2]);
            String message = refused();
            assertTrue(message.contains("common configuration"), message);
            function.show(change[0], change[1], before);
        }
        function.show(common + 2, 1, 20);
        assertEquals(60, valid().common().bytes(), "a longer capability");
        function.show(common + 12, 4, (int) function.bar0Bytes);
        assertEquals(function.bar0Bytes, valid().common().bytes(), "a longer structure");
        function.bar0Bytes = 0x2000;
        refused();
    }

    @Test
    void sharedMemoryIsKnownByItsId() {
        assertEquals(Map.of(), valid().sharedMemory());
        int access = function.capability(5);
        function.show(access + 2, 1, 24);
        function.show(access + 3, 1, 8);
        function.show(access + 4, 1, 0);
        function.show(access + 5, 1, 7);
        function.show(access + 8, 4, 0x1000);
        function.show(access + 12, 4, 0);
        function.show(access + 16, 4, 0);
        function.show(access + 20, 4, 1);
        assertEquals(Map.of(), valid().sharedMemory(), "4 GiB of a smaller BAR");
        function.bar0Bytes = 3L << 32;
        Map<Integer, Capabilities.Structure> one =
                Map.of(7, new Capabilities.Structure(0, 0x1000, 1L << 32));
        assertEquals(one, valid().sharedMemory());
        function.show(access + 16, 4, -1);
        assertEquals(Map.of(), valid().sharedMemory(), "an offset beyond the end");
    }

    @Test
    void capabilityListThatLoopsOrLeavesEnds() {
        int common = function.capability(1);
        for (int next : new int[] {0x40, common, 0x3c, 0x04}) {
            function.show(common + 1, 1, next);
            String message = refused();
            assertTrue(message.contains(next < 0x40 ? "header" : "loops"), message);
        }
        function.show(common + 1, 1, 0xfc);
        function.show(0xfc, 4, 0x0110_0009);
        assertTrue(refused().contains("beyond the end"));
    }
}
