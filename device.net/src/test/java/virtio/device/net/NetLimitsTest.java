package virtio.device.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import virtio.api.ConfigSpace;
import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.net.HashType;
import virtio.api.net.NetConfig;
import virtio.api.net.NetFeature;

import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Set;

/** Devices whose configuration is not what the specification says. */
class NetLimitsTest {
    private static final Features RSS =
            Features.of(NetFeature.CTRL_VQ, NetFeature.MQ, NetFeature.RSS, NetFeature.HASH_REPORT);

    private final ByteBuffer bytes =
            ByteBuffer.allocate(NetConfig.BYTES).order(ByteOrder.LITTLE_ENDIAN);

    private final ConfigSpace config =
            (ConfigSpace)
                    Proxy.newProxyInstance(
                            ConfigSpace.class.getClassLoader(),
                            new Class<?>[] {ConfigSpace.class},
                            (self, method, args) ->
                                    switch (method.getName()) {
                                        case "read8" -> bytes.get((int) args[0]) & 0xFF;
                                        case "read16" -> bytes.getShort((int) args[0]) & 0xFFFF;
                                        case "read32" -> bytes.getInt((int) args[0]);
                                        default -> throw new AssertionError(method);
                                    });

    private void says(int pairs, int key, int table, int types) {
        bytes.putShort(NetConfig.MAX_VIRTQUEUE_PAIRS, (short) pairs);
        bytes.put(NetConfig.RSS_MAX_KEY_SIZE, (byte) key);
        bytes.putShort(NetConfig.RSS_MAX_INDIRECTION_TABLE_LENGTH, (short) table);
        bytes.putInt(NetConfig.SUPPORTED_HASH_TYPES, types);
    }

    private void refused(String reason) {
        String said =
                assertThrows(VirtioException.class, () -> NetLimits.read(RSS, config)).getMessage();
        assertEquals(reason, said);
    }

    @Test
    @Tag("DRV-NET-001")
    void sizesBelowTheLeastAreRefusedByValueAndLimit() throws Exception {
        says(4, 39, 128, 0x1FF);
        refused("rss_max_key_size of 39 bytes, the least is 40");
        says(4, 40, 127, 0x1FF);
        refused("rss_max_indirection_table_length of 127, the least is 128");
        says(0, 40, 128, 0x1FF);
        refused("max_virtqueue_pairs of 0, limits are 1 and 32768");
        says(4, 40, 128, 0x1FF);
        NetLimits limits = NetLimits.read(RSS, config);
        assertEquals(40, limits.hashing().maxKeyBytes());
        assertEquals(128, limits.hashing().maxTableLength());
        assertEquals(9, limits.hashing().types().size());
        // A table's length means nothing without RSS.
        says(4, 255, 0, 2);
        NetLimits reports = NetLimits.read(RSS.without(NetFeature.RSS), config);
        assertEquals(0, reports.hashing().maxTableLength());
        assertEquals(255, reports.hashing().maxKeyBytes());
        assertEquals(Set.of(HashType.TCPV4), reports.hashing().types());
    }

    @Test
    void typesWithoutANameAreNotThere() throws Exception {
        says(4, 40, 128, 0xFFFF_FE01);
        assertEquals(Set.of(HashType.IPV4), NetLimits.read(RSS, config).hashing().types());
    }

    /** The control queue is behind all pairs, with RSS alone as well (5.1.2). */
    @Test
    void rssSaysHowManyPairsThereAre() throws Exception {
        says(6, 40, 128, 0x1FF);
        NetLimits limits = NetLimits.read(RSS.without(NetFeature.MQ), config);
        assertEquals(6, limits.maxPairs());
        Features neither = RSS.without(NetFeature.MQ, NetFeature.RSS);
        assertEquals(1, NetLimits.read(neither, config).maxPairs());
        says(300, 40, 128, 0x1FF);
        Features wanted = NetLimits.wanted(RSS, config);
        assertFalse(wanted.has(NetFeature.RSS) || wanted.has(NetFeature.MQ));
    }

    @Test
    @Tag("DRV-NET-012")
    @Tag("DRV-NET-013")
    void withoutAControlQueueNothingIsWantedThatNeedsOne() {
        says(4, 40, 128, 0x1FF);
        Features offered = RSS.with(NetFeature.CTRL_RX, NetFeature.CTRL_RX_EXTRA);
        assertTrue(NetLimits.wanted(offered, config).has(NetFeature.HASH_REPORT));
        assertTrue(NetLimits.wanted(offered, config).has(NetFeature.CTRL_RX_EXTRA));
        Features wanted = NetLimits.wanted(offered.without(NetFeature.CTRL_VQ), config);
        assertFalse(wanted.has(NetFeature.HASH_REPORT));
        assertFalse(wanted.has(NetFeature.CTRL_RX_EXTRA));
    }
}
