package virtio.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.security.MessageDigest;
import java.util.HexFormat;

/** The distribution in a guest, on nothing but its embedded default. */
class EmbeddedIT {
    private static Guest guest;

    @BeforeAll
    static void boot() throws Exception {
        guest =
                Guest.q35("embedded")
                        .job(
                                """
                                check use container "export ram:8MiB mmio:emu0; attach mmio:emu0; \
                                perf blk0 --runtime=1; copy blk0 file:/tmp/disk.img; ls"
                                check refusal container "attach mmio:nobody"
                                sha256sum /tmp/disk.img > /tmp/sum
                                give /tmp/sum
                                exit 7
                                """)
                        .run();
    }

    @Test
    void theJobsStatusIsTheGuests() {
        assertEquals(7, guest.exit());
    }

    @Test
    void aDiskIsUsed() throws Exception {
        String said = guest.passed("use");
        assertTrue(said.contains(" IOPS"), said);
        byte[] zeros = MessageDigest.getInstance("SHA-256").digest(new byte[8 << 20]);
        String sum = HexFormat.of().formatHex(zeros);
        assertTrue(said.contains("sha256 " + sum), said);
        assertEquals(sum, new String(guest.file("sum")).split(" ")[0]);
    }

    @Test
    void aCommandThatFailsIsAStepThatFails() {
        String said = guest.refused("refusal");
        assertTrue(said.contains("mmio:nobody does not exist"), said);
    }
}
