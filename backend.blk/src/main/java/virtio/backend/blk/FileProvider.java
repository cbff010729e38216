package virtio.backend.blk;

import org.osgi.service.component.annotations.Component;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;

import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/**
 * Disks in regular files: {@code file:PATH[,readonly][,blocksize=N][,queues=N][,serial=TEXT]}; the
 * path ends at the first comma.
 *
 * <p>The serial is made from the path, links resolved, so that all exports of one file are the same
 * disk to a driver.
 */
@Component
public final class FileProvider implements BackendProvider {
    private static final int HASH_BYTES = 7;

    @Override
    public String name() {
        return "file";
    }

    @Override
    public Backend open(String spec) throws VirtioException {
        BlkSpec parsed = BlkSpec.parse(spec);
        Path path;
        try {
            path = FileStorage.realPath(Path.of(parsed.target()));
        } catch (InvalidPathException e) {
            throw new VirtioException("no path: " + e.getMessage(), e);
        }
        FileStorage storage = new FileStorage(path, parsed.readOnly(), parsed.blockSize());
        return new BlkBackend(storage, parsed, serial(path));
    }

    private static String serial(Path path) {
        try {
            byte[] hash =
                    MessageDigest.getInstance("SHA-256")
                            .digest(path.toString().getBytes(StandardCharsets.UTF_8));
            return "file-" + HexFormat.of().formatHex(hash, 0, HASH_BYTES);
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every Java has SHA-256", e);
        }
    }
}
