package virtio.transport.vhostuser;

import virtio.api.DeviceType;
import virtio.api.Feature;
import virtio.api.Features;
import virtio.api.VirtioException;

import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Set;
import java.util.TreeSet;

/**
 * What an address says behind the first colon: {@code PATH[,type=blk|net][,without=FEATURE]…}.
 *
 * @param deviceType 0 when it is not said
 * @param without features that are left alone, by the specification's names
 */
record Address(Path path, int deviceType, Set<String> without) {
    private static final String TYPE = "type=";
    private static final String WITHOUT = "without=";

    /** No bit from here on has a name. */
    private static final int NAMED_BITS = 128;

    static Address parse(String address) throws VirtioException {
        String path = address;
        int type = 0;
        Set<String> without = new TreeSet<>();
        for (int comma = path.lastIndexOf(','); comma >= 0; comma = path.lastIndexOf(',')) {
            String option = path.substring(comma + 1);
            path = path.substring(0, comma);
            if (option.startsWith(WITHOUT) && option.length() > WITHOUT.length()) {
                without.add(option.substring(WITHOUT.length()));
            } else if (option.equals(TYPE + "blk")) {
                type = DeviceType.BLOCK;
            } else if (option.equals(TYPE + "net")) {
                type = DeviceType.NETWORK;
            } else {
                throw new VirtioException(
                        ("%s:%s: behind a comma there may be type=blk, type=net or"
                                        + " without=FEATURE")
                                .formatted(VhostUser.NAME, address));
            }
        }
        if (path.isEmpty()) {
            throw new VirtioException(VhostUser.NAME + ": the path of a socket is missing");
        }
        try {
            return new Address(Path.of(path), type, Set.copyOf(without));
        } catch (InvalidPathException e) {
            throw new VirtioException(VhostUser.NAME + ": no path: " + e.getMessage(), e);
        }
    }

    /** The features that are left alone, of a device of that type. */
    Features without(int type) throws VirtioException {
        Features bits = Features.NONE;
        for (String name : without) {
            bits = bits.with(bit(type, name));
        }
        return bits;
    }

    private int bit(int type, String name) throws VirtioException {
        for (int bit = 0; bit < NAMED_BITS; bit++) {
            if (name.equals(Feature.name(type, bit))) {
                return bit;
            }
        }
        throw new VirtioException(
                "%s:%s: without=%s is no feature of a %s device, as RING_PACKED is"
                        .formatted(VhostUser.NAME, path, name, DeviceType.name(type)));
    }
}
