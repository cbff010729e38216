package virtio.guest;

import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;

/** Disk images, made and checked by the host's own tools. */
final class Disks {
    private Disks() {}

    /** An image of 16 MiB with a file system and files on it. */
    static Path fileSystem(Path image) throws Exception {
        return fileSystem(image, 16);
    }

    /** The same of another size, at least 4 MiB. */
    static Path fileSystem(Path image, int mebibytes) throws Exception {
        Path content = Files.createTempDirectory(image.getParent(), "content");
        Random random = new Random(4711);
        for (int i = 0; i < mebibytes * 3 / 4; i++) {
            byte[] bytes = new byte[random.nextInt(1 << 19)];
            random.nextBytes(bytes);
            Files.write(content.resolve("file" + i), bytes);
        }
        blank(image, mebibytes << 20);
        String mke2fs = Image.prepared("mke2fs");
        String from = content.toString();
        Image.run(List.of(mke2fs, "-q", "-F", "-t", "ext4", "-d", from, image.toString()));
        return image;
    }

    /** An image of zeros. */
    static Path blank(Path image, long bytes) throws Exception {
        try (FileChannel channel =
                FileChannel.open(image, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
            channel.truncate(0);
            channel.write(ByteBuffer.allocate(1), bytes - 1);
        }
        return image;
    }

    /** The file system on an image is whole. */
    static void check(Path image) throws Exception {
        Image.run(List.of(Image.prepared("e2fsck"), "-fn", image.toString()));
    }

    static String sha256(Path file) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        try (OutputStream sink = new DigestOutputStream(OutputStream.nullOutputStream(), digest)) {
            Files.copy(file, sink);
        }
        return HexFormat.of().formatHex(digest.digest());
    }
}
