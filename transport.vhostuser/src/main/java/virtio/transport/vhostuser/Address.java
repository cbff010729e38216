package virtio.transport.vhostuser;

import virtio.api.DeviceType;
import virtio.api.VirtioException;

import java.nio.file.InvalidPathException;
import java.nio.file.Path;

/**
 * What an address says behind the first colon: {@code PATH}, {@code PATH,type=blk} or {@code
 * PATH,type=net}.
 *
 * @param deviceType 0 when it is not said
 */
record Address(Path path, int deviceType) {
    static Address parse(String address) throws VirtioException {
        String path = address;
        int type = 0;
        int comma = address.lastIndexOf(',');
        if (comma >= 0) {
            path = address.substring(0, comma);
            type =
                    switch (address.substring(comma + 1)) {
                        case "type=blk" -> DeviceType.BLOCK;
                        case "type=net" -> DeviceType.NETWORK;
                        default ->
                                throw new VirtioException(
                                        "%s:%s: behind the comma there may be type=blk or type=net"
                                                .formatted(VhostUser.NAME, address));
                    };
        }
        if (path.isEmpty()) {
            throw new VirtioException(VhostUser.NAME + ": the path of a socket is missing");
        }
        try {
            return new Address(Path.of(path), type);
        } catch (InvalidPathException e) {
            throw new VirtioException(VhostUser.NAME + ": no path: " + e.getMessage(), e);
        }
    }
}
