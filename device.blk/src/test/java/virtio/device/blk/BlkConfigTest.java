package virtio.device.blk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import virtio.api.Features;
import virtio.api.VirtioException;
import virtio.api.block.BlockFeature;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** What a device says about itself, and what the driver makes of it. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class BlkConfigTest {
    private final List<String> announced = new ArrayList<>();
    private final FakeDisk fake = new FakeDisk(1 << 20);

    private BlkDevice probe() throws Exception {
        BlkDriver driver =
                new BlkDriver(
                        d -> {
                            announced.add(d.name());
                            return () -> {};
                        });
        return (BlkDevice) driver.probe(fake);
    }

    @AfterEach
    void noClauseWasBroken() throws Exception {
        fake.settle();
        fake.close();
        assertEquals(List.of(), fake.violations);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "BLK_SIZE|20|1000|block size of 1000 bytes is not a power of two from 512",
                "BLK_SIZE|20|256|block size of 256 bytes is not a power of two from 512",
                "BLK_SIZE|20|-1|block size of 4294967295 bytes is not",
                "SIZE_MAX|8|3|a block of 512 bytes does not fit a request of 16 elements of 3",
                "MQ|34|0|num_queues of 0, at least 1 is needed",
                "DISCARD|4|-1|capacity of 18446744069414586368 sectors, the limit is"
            })
    void configurationsThatMakeNoSenseAreRefused(
            String feature, int offset, int value, String sentence) throws Exception {
        int bit = 0;
        while (!feature.equals(BlockFeature.name(bit))) {
            bit++;
        }
        fake.features = fake.features.with(bit);
        fake.set32(offset, value);
        String message = assertThrows(VirtioException.class, this::probe).getMessage();
        assertTrue(message.contains(sentence), message);
        assertEquals(0, fake.memory.live());
        assertEquals(List.of(), announced);
    }

    @Test
    @Tag("DRV-CORE-012")
    void fieldsOfFeaturesThatAreNotOfferedAreNotLookedAt() throws Exception {
        int[] sizeMaxBlkSizeQueuesDiscard = {8, 20, 34, 36};
        for (int offset : sizeMaxBlkSizeQueuesDiscard) {
            fake.set32(offset, -1);
        }
        BlkDevice disk = probe();
        assertEquals(512, disk.blockSize());
        disk.write(0, Arena.ofAuto().allocate(65536)).join();
    }

    @Test
    void sizeMaxOfZeroIsNoLimit() throws Exception {
        fake.features = fake.features.with(BlockFeature.SIZE_MAX);
        BlkDevice disk = probe();
        disk.write(0, Arena.ofAuto().allocate(65536)).join();
        assertEquals(List.of("8@0+20", "1@0+65536"), fake.takeServed());
    }

    /** The fake's configuration has a violation for whoever reads the field. */
    @Test
    @Tag("DRV-BLK-003")
    @Tag("DRV-BLK-004")
    void writebackIsNotReadAndACacheIsAssumed() throws Exception {
        fake.features = fake.features.with(BlockFeature.CONFIG_WCE);
        BlkDriver driver = new BlkDriver(d -> () -> {});
        assertFalse(driver.wanted(fake.features, fake.config()).has(BlockFeature.CONFIG_WCE));
        BlkDevice disk = probe();
        fake.takeServed();
        disk.flush().join();
        assertEquals(List.of("4@0+0"), fake.takeServed());
    }

    @Test
    @Tag("DRV-BLK-005")
    @Tag("DRV-BLK-008")
    @Tag("DRV-BLK-009")
    void hostManagedZonedDeviceIsRefusedAndZonesAreNeverWanted() throws Exception {
        BlkDriver driver = new BlkDriver(d -> () -> {});
        Features offered = fake.features.with(BlockFeature.ZONED, BlockFeature.CONFIG_WCE);
        assertFalse(driver.wanted(offered, fake.config()).has(BlockFeature.ZONED));
        fake.config[92] = 2;
        assertNotNull(driver.wanted(offered, fake.config()));
        fake.config[92] = 1;
        assertThrows(VirtioException.class, () -> driver.wanted(offered, fake.config()));
    }

    @Test
    @Tag("DRV-BLK-018")
    void serialOfStrangeBytesIsShownSafely() throws Exception {
        fake.serial = "a\u001b[2Jb";
        assertEquals("a?[2Jb", probe().serial());
    }
}
