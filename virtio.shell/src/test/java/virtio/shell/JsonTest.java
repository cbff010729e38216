package virtio.shell;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

import virtio.api.Features;
import virtio.api.status.SwapResult;

import java.util.Arrays;
import java.util.List;

class JsonTest {
    private record Nested(List<Integer> numbers, SwapResult swap, Features features) {}

    @Test
    void recordsNestAndTextIsQuoted() {
        var swap = new SwapResult("a\"b\\c\n", null, "mmio:x", 5);
        assertEquals(
                "{\"numbers\":[1,null],\"swap\":{\"name\":\"a\\\"b\\\\c\\u000a\",\"from\":null,"
                        + "\"to\":\"mmio:x\",\"pauseNanos\":5},\"features\":[5,32,70]}",
                Json.of(new Nested(Arrays.asList(1, null), swap, Features.of(5, 32, 70))));
    }
}
