package virtio.backend.blk;

import virtio.api.VirtioException;
import virtio.api.block.BlockRequest;

import java.nio.charset.StandardCharsets;

/**
 * A backend's description taken apart: {@code TARGET[,readonly][,blocksize=N][,queues=N]
 * [,serial=TEXT]}.
 *
 * @param target what stands before the first comma, a size or a path
 * @param readOnly whether writes are refused
 * @param blockSize bytes of a block, a power of two from 512 to 65536
 * @param queues number of request queues, 1 to {@link #MAX_QUEUES}
 * @param serial the id string; null when none was given
 */
record BlkSpec(String target, boolean readOnly, int blockSize, int queues, String serial) {
    static final int MAX_BLOCK_SIZE = 65536;
    static final int MAX_QUEUES = 64;

    static BlkSpec parse(String spec) throws VirtioException {
        String[] parts = spec.split(",", -1);
        boolean readOnly = false;
        int blockSize = 0;
        int queues = 0;
        String serial = null;
        for (int i = 1; i < parts.length; i++) {
            int equals = parts[i].indexOf('=');
            String key = equals < 0 ? parts[i] : parts[i].substring(0, equals);
            String value = equals < 0 ? null : parts[i].substring(equals + 1);
            boolean again =
                    switch (key) {
                        case "readonly" -> readOnly;
                        case "blocksize" -> blockSize != 0;
                        case "queues" -> queues != 0;
                        case "serial" -> serial != null;
                        default -> false;
                    };
            if (again) {
                throw new VirtioException("option %s is given twice".formatted(key));
            }
            if (key.equals("readonly") != (value == null)) {
                throw new VirtioException(
                        value == null
                                ? "option '%s' is not readonly, blocksize=N, queues=N or serial=TEXT"
                                        .formatted(key)
                                : "option readonly takes no value, but has '%s'".formatted(value));
            }
            switch (key) {
                case "readonly" -> readOnly = true;
                case "blocksize" -> blockSize = blockSize(value);
                case "queues" -> queues = number(key, value, 1, MAX_QUEUES);
                case "serial" -> serial = serial(value);
                default ->
                        throw new VirtioException(
                                "option '%s' is not readonly, blocksize=N, queues=N or serial=TEXT"
                                        .formatted(key));
            }
        }
        return new BlkSpec(
                parts[0],
                readOnly,
                blockSize == 0 ? BlockRequest.SECTOR_BYTES : blockSize,
                queues == 0 ? 1 : queues,
                serial);
    }

    /** Bytes of a size like {@code 64MiB}, {@code 1GiB}, {@code 512KiB} or {@code 4096}. */
    static long size(String text) throws VirtioException {
        int shift = 0;
        String digits = text;
        if (text.endsWith("iB") && text.length() > 3) {
            shift =
                    switch (text.charAt(text.length() - 3)) {
                        case 'K' -> 10;
                        case 'M' -> 20;
                        case 'G' -> 30;
                        case 'T' -> 40;
                        default -> 0;
                    };
            if (shift != 0) {
                digits = text.substring(0, text.length() - 3);
            }
        }
        try {
            if (digits.chars().allMatch(c -> c >= '0' && c <= '9')) {
                return Math.multiplyExact(Long.parseLong(digits), 1L << shift);
            }
        } catch (NumberFormatException | ArithmeticException e) {
            throw new VirtioException(
                    "size '%s' is no number up to %d bytes".formatted(text, Long.MAX_VALUE), e);
        }
        throw new VirtioException(
                "size '%s' is not a number of bytes, KiB, MiB, GiB or TiB, as 64MiB"
                        .formatted(text));
    }

    private static int blockSize(String value) throws VirtioException {
        int bytes = number("blocksize", value, BlockRequest.SECTOR_BYTES, MAX_BLOCK_SIZE);
        if (Integer.bitCount(bytes) != 1) {
            throw new VirtioException(
                    "option blocksize=%d is not a power of two from %d to %d"
                            .formatted(bytes, BlockRequest.SECTOR_BYTES, MAX_BLOCK_SIZE));
        }
        return bytes;
    }

    private static String serial(String value) throws VirtioException {
        int bytes = value.getBytes(StandardCharsets.UTF_8).length;
        if (bytes > BlockRequest.ID_BYTES) {
            throw new VirtioException(
                    "option serial='%s' has %d bytes, the limit is %d"
                            .formatted(value, bytes, BlockRequest.ID_BYTES));
        }
        return value;
    }

    private static int number(String key, String value, int least, int most)
            throws VirtioException {
        try {
            int number = Integer.parseInt(value);
            if (number >= least && number <= most) {
                return number;
            }
        } catch (NumberFormatException e) {
            // Reported below, as a number out of range is.
        }
        throw new VirtioException(
                "option %s=%s is not a number from %d to %d".formatted(key, value, least, most));
    }
}
