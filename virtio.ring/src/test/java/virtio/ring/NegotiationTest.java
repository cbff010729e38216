package virtio.ring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import virtio.api.ConfigSpace;
import virtio.api.DeviceStatus;
import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.status.DeviceSnapshot;
import virtio.ring.queue.DeviceEnd;
import virtio.ring.queue.DriverEnd;

import java.util.Collections;
import java.util.List;
import java.util.stream.IntStream;

/** The initialisation sequence, as the device sees it. */
@Tag("unchecked")
@Timeout(60)
class NegotiationTest {
    private static final List<String> TO_FEATURES =
            List.of(
                    "RESET",
                    "ACKNOWLEDGE",
                    "ACKNOWLEDGE|DRIVER",
                    "accept",
                    "ACKNOWLEDGE|DRIVER|FEATURES_OK");

    @Test
    @Tag("DRV-CORE-001")
    @Tag("DRV-CORE-002")
    @Tag("DRV-CORE-018")
    @Tag("DRV-CORE-020")
    @Tag("DRV-CORE-023")
    @Tag("DRV-MMIO-020")
    void stepsFollowTheSpecification() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            // A device that is still looking at the new queue needs no notification.
            rig.loop.windows.get("a").settle();
            rig.ask(1);
            assertEquals(TO_FEATURES, rig.loop.journal.subList(0, 5));
            assertEquals(
                    List.of("startQueue", "ACKNOWLEDGE|DRIVER|FEATURES_OK|DRIVER_OK", "notify"),
                    rig.loop.journal.subList(5, 8));
            assertEquals(1, Collections.frequency(rig.loop.journal, "accept"));
        }
    }

    @Test
    @Tag("DRV-CORE-003")
    @Tag("DRV-CORE-021")
    @Tag("DRV-CORE-022")
    void aDriverThatGivesUpSaysFailedAndResets() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.driver.refuseProbe = new VirtioException("no");
            assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
            assertEquals(TO_FEATURES, rig.loop.journal.subList(0, 5));
            assertEquals(
                    List.of("ACKNOWLEDGE|DRIVER|FEATURES_OK|FAILED", "RESET", "close"),
                    rig.loop.journal.subList(5, 8));
        }
    }

    @Test
    @Tag("DRV-CORE-025")
    @Tag("DRV-CORE-010")
    void exposedBuffersAreTakenBackAfterTheResetOnly() throws Exception {
        try (Rig rig = Rig.complete(new Settings(20_000, 0, 10))) {
            rig.bus.attach("loop:a", null);
            rig.backend.last.mute = true;
            rig.driver.last.ask(1).exceptionally(e -> 0L);
            rig.loop.journal.clear();
            rig.bus.detach("blk0");
            // Two elements of the buffer that the device kept.
            assertEquals(List.of("RESET", "unmap", "unmap", "close"), rig.loop.journal);
        }
    }

    @Test
    @Tag("DRV-CORE-005")
    @Tag("DRV-CORE-007")
    @Tag("DRV-CORE-009")
    @Tag("DRV-CORE-032")
    @Tag("DRV-CORE-034")
    void acceptsWhatIsOfferedAndWantedAndNothingElse() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.driver.wanted = Features.of(9, 12, 24, 70, 127, 128);
            rig.loop.extraFeatures =
                    Features.of(Feature.ACCESS_PLATFORM, 41, 45, 63, 70, 128, Feature.SR_IOV);
            DeviceSnapshot device = rig.bus.attach("loop:a", null);
            assertEquals(
                    Features.of(
                            9,
                            Feature.INDIRECT_DESC,
                            Feature.EVENT_IDX,
                            Feature.VERSION_1,
                            Feature.ACCESS_PLATFORM,
                            Feature.RING_PACKED,
                            Feature.IN_ORDER,
                            Feature.RING_RESET,
                            70),
                    device.accepted());
        }
    }

    /** Bits that belong to no device type are accepted where the core implements them. */
    @Test
    @Tag("DRV-CORE-005")
    void whatIsNotImplementedIsNotAccepted() throws Exception {
        Features implemented = DriverEnd.FEATURES.with(Feature.ACCESS_PLATFORM);
        for (int bit = 0; bit < 192; bit++) {
            try (Rig rig = Rig.complete()) {
                rig.driver.wanted = Features.of(IntStream.range(0, 192).toArray());
                rig.loop.extraFeatures = Features.of(bit).andNot(DeviceEnd.FEATURES);
                DeviceSnapshot device = rig.bus.attach("loop:a", null);
                boolean ofDeviceType = bit < 24 || bit >= 50 && bit < 128;
                assertEquals(
                        ofDeviceType || implemented.has(bit),
                        device.accepted().has(bit),
                        "bit " + bit);
            }
        }
    }

    @Test
    @Tag("DRV-CORE-005")
    @Tag("DRV-CORE-006")
    void aFeatureWithoutTheOneItNeedsIsNotAccepted() {
        // GUEST_ECN needs GUEST_TSO4 or 6, which need GUEST_CSUM; CTRL_RX needs CTRL_VQ.
        assertEquals(
                Features.of(5),
                FeatureRules.satisfied(DeviceType.NETWORK, Features.of(5, 7, 9, 18)));
        // RSS and HASH_TUNNEL need CTRL_VQ, RSS_CONTEXT needs RSS, RSC_EXT HOST_TSO4 or 6.
        assertEquals(
                Features.of(5, 57),
                FeatureRules.satisfied(DeviceType.NETWORK, Features.of(5, 51, 57, 60, 61, 64)));
        assertEquals(
                Features.of(17),
                FeatureRules.satisfied(DeviceType.NETWORK, Features.of(17, 51)),
                "HASH_TUNNEL needs RSS or HASH_REPORT as well");
        // HOST_UDP_TUNNEL_GSO needs all of HOST_TSO4, HOST_TSO6 and HOST_USO, and _CSUM that.
        Features tunnel = Features.of(0, 11, 12, 56, 67, 68);
        assertEquals(tunnel, FeatureRules.satisfied(DeviceType.NETWORK, tunnel));
        for (int bit : new int[] {11, 12, 56}) {
            assertEquals(
                    tunnel.without(bit, 67, 68),
                    FeatureRules.satisfied(DeviceType.NETWORK, tunnel.without(bit)));
        }
        Features whole = Features.of(1, 5, 8, 9, 17, 18, 51, 57, 60, 64);
        assertEquals(whole, FeatureRules.satisfied(DeviceType.NETWORK, whole));
        assertEquals(
                Features.of(9, 18),
                FeatureRules.satisfied(DeviceType.BLOCK, Features.of(9, 18)),
                "other devices have other rules");
    }

    @Test
    @Tag("DRV-CORE-008")
    void aFeatureWithoutVersion1IsALegacyDevice() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.loop.hiddenFeatures = Features.of(Feature.VERSION_1);
            assertThrows(VirtioException.class, () -> rig.bus.attach("loop:a", null));
            assertTrue(rig.loop.journal.contains("ACKNOWLEDGE|DRIVER|FAILED"));
            assertFalse(rig.loop.journal.contains("accept"));
        }
    }

    @Test
    @Tag("DRV-CORE-019")
    void theConfigurationIsNotWrittenBeforeFeaturesAreNegotiated() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.driver.onWanted =
                    config -> {
                        assertEquals(1000, config.read64(0));
                        BusTest.assertMessage(
                                "blk0 (loop:a): the configuration is not writable before features"
                                        + " are negotiated",
                                () -> config.write8(0, 1));
                    };
            rig.bus.attach("loop:a", null);
            assertFalse(rig.loop.journal.contains("writeConfig"));
            rig.driver.last.device.config().write16(0, 1);
            assertTrue(rig.loop.journal.contains("writeConfig"));
        }
    }

    @Test
    @Tag("DRV-CORE-011")
    @Tag("DRV-CORE-013")
    void configurationFieldsAreLittleEndianAndChecked() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.backend.last.resize(0x8877665544332211L);
            ConfigSpace config = rig.driver.last.device.config();
            assertEquals(0x22, config.read8(1));
            assertEquals(0x8877, config.read16(6));
            assertEquals(0x66554433, config.read32(2));
            assertEquals(0x8877665544332211L, config.read64(0));
            byte[] three = new byte[3];
            config.read(5, three);
            assertEquals(
                    List.of(0x66, 0x77, 0x88),
                    List.of(three[0] & 0xFF, three[1] & 0xFF, three[2] & 0xFF));
            BusTest.assertMessage(
                    "8 bytes at offset 1, the configuration has 8", () -> config.read64(1));
            assertThrows(VirtioException.class, () -> config.read8(-1));
            assertThrows(VirtioException.class, () -> config.read32(Integer.MAX_VALUE));
            rig.bus.detach("blk0");
            BusTest.assertMessage(
                    "blk0 (loop:a): the configuration was asked for after the device was let go",
                    () -> config.read8(0));
        }
    }

    @Test
    @Tag("DRV-CORE-004")
    void aDeviceThatNeedsAResetIsNotReliedOn() throws Exception {
        try (Rig rig = Rig.complete()) {
            rig.bus.attach("loop:a", null);
            rig.loop.journal.clear();
            rig.loop.statusStuck = DeviceStatus.DEVICE_NEEDS_RESET;
            rig.backend.last.resize(1000);
            rig.await(() -> rig.driver.calls.contains("freeze 0"), "frozen");
            rig.loop.statusStuck = 0;
            rig.await(() -> rig.device().swaps() == 1, "back");
            assertEquals("RESET", rig.loop.journal.getFirst());
        }
    }
}
