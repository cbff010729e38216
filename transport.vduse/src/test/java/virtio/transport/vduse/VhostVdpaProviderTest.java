package virtio.transport.vduse;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class VhostVdpaProviderTest {
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    -1            | 0       | memoryBytes is -1, limits are 16384 and 1099511627776
                    16383         | 0       | memoryBytes is 16383, limits are 16384 and 1099511627776
                    1048576       | 2097152 | memoryBytes is 1048576, limits are 2097152 and 1099511627776
                    1099511627777 | 0       | memoryBytes is 1099511627777, limits are 16384 and 1099511627776
                    1048576       | -1      | hugePageBytes is -1, it is 0 or a power of two from 4096 to 17179869184
                    1048576       | 2048    | hugePageBytes is 2048, it is 0 or a power of two from 4096 to 17179869184
                    1048576       | 12288   | hugePageBytes is 12288, it is 0 or a power of two from 4096 to 17179869184
                    """)
    void settingsBeyondTheirLimitsAreRefusedByName(long memory, long page, String message) {
        var e =
                assertThrows(
                        IllegalArgumentException.class,
                        () -> new VhostVdpaProvider(memory, page, null, null));
        assertEquals(message, e.getMessage());
    }
}
