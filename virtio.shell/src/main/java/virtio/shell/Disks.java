package virtio.shell;

import org.osgi.service.component.annotations.Component;
import org.osgi.service.component.annotations.Reference;
import org.osgi.service.component.annotations.ReferenceCardinality;
import org.osgi.service.component.annotations.ReferencePolicy;

import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;

import java.util.Collection;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;

/** The container's disks by name, as they come and go. */
@Component(service = Disks.class)
public final class Disks {
    private final Map<String, BlockDevice> byName = new ConcurrentHashMap<>();

    @Reference(cardinality = ReferenceCardinality.MULTIPLE, policy = ReferencePolicy.DYNAMIC)
    void addDisk(BlockDevice disk) {
        byName.put(disk.name(), disk);
        synchronized (byName) {
            byName.notifyAll();
        }
    }

    void removeDisk(BlockDevice disk) {
        byName.remove(disk.name(), disk);
    }

    /** What a disk says of itself. */
    record View(long capacityBytes, int blockSize, boolean readOnly, String serial) {}

    /** The disk of that name as it is now; null when there is none. */
    View view(String name) {
        BlockDevice disk = byName.get(name);
        return disk == null
                ? null
                : new View(disk.capacityBytes(), disk.blockSize(), disk.readOnly(), disk.serial());
    }

    /** The disk of that name; an error that lists those there are. */
    BlockDevice get(String name) throws VirtioException {
        BlockDevice disk = byName.get(name);
        if (disk == null) {
            throw missing("disk", name, new TreeMap<>(byName).keySet());
        }
        return disk;
    }

    /** The error for a name that is not among those there are. */
    static VirtioException missing(String kind, String name, Collection<String> there) {
        return new VirtioException(
                there.isEmpty()
                        ? "no %s %s: none is attached".formatted(kind, name)
                        : "no %s %s, there is %s".formatted(kind, name, String.join(", ", there)));
    }

    /** The disk of that name, waited for. */
    BlockDevice await(String name, long timeoutMillis)
            throws VirtioException, InterruptedException {
        long deadline = System.nanoTime() + timeoutMillis * 1_000_000;
        synchronized (byName) {
            BlockDevice disk;
            while ((disk = byName.get(name)) == null) {
                long left = (deadline - System.nanoTime()) / 1_000_000;
                if (left <= 0) {
                    throw new VirtioException(
                            "no disk %s within %d ms".formatted(name, timeoutMillis));
                }
                byName.wait(left);
            }
            return disk;
        }
    }
}
