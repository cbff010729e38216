package virtio.backend.blk;

import org.osgi.service.component.annotations.Component;

import virtio.api.VirtioException;
import virtio.api.backend.Backend;
import virtio.api.backend.BackendProvider;

import java.security.SecureRandom;

/**
 * Disks in memory: {@code ram:SIZE[,readonly][,blocksize=N][,queues=N][,serial=TEXT]}.
 *
 * <p>Every one is a disk of its own and says so by its serial: nobody's data would be found on
 * another of the same size.
 */
@Component
public final class RamProvider implements BackendProvider {
    @Override
    public String name() {
        return "ram";
    }

    @Override
    public Backend open(String spec) throws VirtioException {
        BlkSpec parsed = BlkSpec.parse(spec);
        RamStorage storage = new RamStorage(BlkSpec.size(parsed.target()), parsed.blockSize());
        String serial = "ram-%016x".formatted(new SecureRandom().nextLong());
        return new BlkBackend(storage, parsed, serial);
    }
}
