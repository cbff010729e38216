package virtio.shell;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

import virtio.api.net.PacketBuffer;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/** Capture files, as Wireshark's own reader understands them. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class PcapFileTest {
    @TempDir Path folder;

    /** A frame that is there to be looked at. */
    private static PacketBuffer frame(byte[] bytes) {
        return (PacketBuffer)
                Proxy.newProxyInstance(
                        PcapFileTest.class.getClassLoader(),
                        new Class<?>[] {PacketBuffer.class},
                        (proxy, method, args) -> {
                            if (method.getName().equals("frameLength")) {
                                return bytes.length;
                            }
                            assertEquals("copyTo", method.getName());
                            MemorySegment.copy(
                                    MemorySegment.ofArray(bytes),
                                    (int) args[0],
                                    (MemorySegment) args[1],
                                    (long) args[2],
                                    (int) args[3]);
                            return null;
                        });
    }

    /** A frame that no dissector takes for more than Ethernet. */
    private static byte[] bytes(int length) {
        byte[] bytes = new byte[length];
        new Random(length).nextBytes(bytes);
        bytes[0] = 2;
        bytes[12] = (byte) 0x88;
        bytes[13] = (byte) 0xB5;
        return bytes;
    }

    private static List<String> tshark(Path file, String... fields) throws Exception {
        List<String> command = new ArrayList<>(List.of("tshark", "-r", file.toString()));
        command.addAll(List.of("-T", "fields"));
        for (String field : fields) {
            command.addAll(List.of("-e", field));
        }
        Path errors = file.resolveSibling("errors");
        Process process;
        try {
            process = new ProcessBuilder(command).redirectError(errors.toFile()).start();
        } catch (IOException e) {
            assumeTrue(false, "no tshark: install it");
            throw e;
        }
        String said = new String(process.getInputStream().readAllBytes());
        assertTrue(process.waitFor(60, TimeUnit.SECONDS), "tshark ends");
        assertEquals(0, process.exitValue(), () -> said + read(errors));
        assertFalse(read(errors).contains("appears"), () -> read(errors));
        return said.lines().toList();
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (IOException e) {
            return e.toString();
        }
    }

    @Test
    void everyFrameIsThereAsItWas() throws Exception {
        Path path = folder.resolve("all.pcapng");
        List<byte[]> frames = new ArrayList<>();
        for (int length = 14; length <= 65_549; length += length < 80 ? 1 : 2047) {
            frames.add(bytes(length));
        }
        long before = System.currentTimeMillis();
        try (PcapFile file = new PcapFile(path, "net0", 65_553, 1_000_000)) {
            for (int i = 0; i < frames.size(); i++) {
                file.frame(0, i % 2 == 0, frame(frames.get(i)));
            }
        }
        long after = System.currentTimeMillis();
        List<String> read =
                tshark(
                        path,
                        "frame.len",
                        "frame.cap_len",
                        "frame.interface_name",
                        "frame.time_epoch",
                        "frame.packet_flags_direction",
                        "eth.src",
                        "data.data");
        assertEquals(frames.size(), read.size());
        for (int i = 0; i < frames.size(); i++) {
            byte[] frame = frames.get(i);
            String[] fields = read.get(i).split("\t", -1);
            assertEquals(frame.length, Integer.parseInt(fields[0]));
            assertEquals(frame.length, Integer.parseInt(fields[1]));
            assertEquals("net0", fields[2]);
            double millis = Double.parseDouble(fields[3]) * 1000;
            assertTrue(millis >= before - 1 && millis <= after + 1, fields[3]);
            assertEquals(i % 2 == 0 ? 1 : 2, Integer.decode(fields[4]));
            String hex = HexFormat.of().formatHex(frame);
            assertEquals(hex.substring(12, 24), fields[5].replace(":", ""));
            assertEquals(hex.substring(28), fields[6]);
        }
    }

    @Test
    void framesAreCutAndTheFileEndsWhenItIsFull() throws Exception {
        Path path = folder.resolve("some.pcapng");
        try (PcapFile file = new PcapFile(path, "a name of 21 letters!", 100, 3)) {
            for (int i = 0; i < 10; i++) {
                file.frame(0, true, frame(bytes(1000 + i)));
            }
            assertTrue(file.await(10_000), "the file is full");
            assertEquals(3, file.written());
        }
        assertEquals(
                List.of("1000\t100", "1001\t100", "1002\t100"),
                tshark(path, "frame.len", "frame.cap_len"));
    }
}
