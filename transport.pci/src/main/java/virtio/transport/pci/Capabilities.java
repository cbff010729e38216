package virtio.transport.pci;

import virtio.api.VirtioException;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What the capability list of a function says, as far as it can be believed (virtio 4.1.4).
 *
 * <p>Of each structure the first usable instance counts; what is reserved, too short, outside its
 * BAR or misplaced is passed over, with the reason kept for who asks why nothing was left.
 *
 * @param common common configuration
 * @param notifications where queues are notified
 * @param notifyMultiplier bytes between two steps of a queue's notification offset, unsigned
 * @param isr interrupt status
 * @param device device-specific configuration, null for a device without
 * @param msixAt offset of the MSI-X capability in configuration space, 0 when there is none
 * @param msixVectors entries of the MSI-X table, 0 when there is none
 * @param sharedMemory shared memory regions by id, in the order of the list
 */
record Capabilities(
        Structure common,
        Structure notifications,
        long notifyMultiplier,
        Structure isr,
        Structure device,
        int msixAt,
        int msixVectors,
        Map<Integer, Structure> sharedMemory) {
    /** More capabilities do not fit in configuration space. */
    private static final int MOST = (PciRegisters.CONFIG_BYTES - 0x40) / 4;

    /** A structure in a BAR. */
    record Structure(int bar, long offset, long bytes) {}

    /** Where the walk keeps what it has found. */
    private static final class Walk {
        final String where;
        final PciFunction function;
        final List<String> passedOver = new ArrayList<>();
        final Map<Integer, Structure> shared = new LinkedHashMap<>();
        final Structure[] found = new Structure[PciRegisters.TYPE_DEVICE + 1];
        long multiplier;
        int msixAt;
        int msixVectors;

        Walk(String where, PciFunction function) {
            this.where = where;
            this.function = function;
        }

        int read8(int offset) {
            return function.readConfig(offset, 1);
        }

        long read32(int offset) {
            return Integer.toUnsignedLong(function.readConfig(offset, 4));
        }
    }

    /**
     * Walks the list.
     *
     * @param where the function's address, for the error
     * @throws VirtioException when a structure is missing that no device can do without
     */
    static Capabilities of(String where, PciFunction function) throws VirtioException {
        Walk walk = new Walk(where, function);
        if ((function.readConfig(PciRegisters.STATUS, 2) & PciRegisters.STATUS_CAPABILITIES) != 0) {
            walk(walk);
        } else {
            walk.passedOver.add("it has no capability list");
        }
        return new Capabilities(
                needed(walk, PciRegisters.TYPE_COMMON),
                needed(walk, PciRegisters.TYPE_NOTIFY),
                walk.multiplier,
                needed(walk, PciRegisters.TYPE_ISR),
                walk.found[PciRegisters.TYPE_DEVICE],
                walk.msixAt,
                walk.msixVectors,
                walk.shared);
    }

    private static Structure needed(Walk walk, int type) throws VirtioException {
        if (walk.found[type] != null) {
            return walk.found[type];
        }
        int deviceId = walk.function.readConfig(PciRegisters.DEVICE_ID, 2);
        throw new VirtioException(
                "%s has no usable %s structure%s%s"
                        .formatted(
                                walk.where,
                                name(type),
                                deviceId < PciRegisters.MODERN_FIRST
                                        ? ", it is a legacy device, and only virtio 1 is driven"
                                        : "",
                                walk.passedOver.isEmpty()
                                        ? ""
                                        : ": " + String.join("; ", walk.passedOver)));
    }

    private static String name(int type) {
        return switch (type) {
            case PciRegisters.TYPE_COMMON -> "common configuration";
            case PciRegisters.TYPE_NOTIFY -> "notification";
            case PciRegisters.TYPE_ISR -> "interrupt status";
            case PciRegisters.TYPE_SHARED_MEMORY -> "shared memory";
            default -> "device configuration";
        };
    }

    private static void walk(Walk walk) {
        BitSet seen = new BitSet(PciRegisters.CONFIG_BYTES);
        int at = walk.read8(PciRegisters.CAPABILITIES) & ~3;
        for (int count = 0; at != 0; count++) {
            if (at < PciRegisters.FIRST_CAPABILITY) {
                walk.passedOver.add("a capability at 0x%02x, inside the header".formatted(at));
                return;
            }
            if (seen.get(at) || count == MOST) {
                walk.passedOver.add("the capability list loops at 0x%02x".formatted(at));
                return;
            }
            seen.set(at);
            int id = walk.read8(at);
            if (id == PciRegisters.CAP_VENDOR) {
                structure(walk, at);
            } else if (id == PciRegisters.CAP_MSIX && walk.msixVectors == 0) {
                walk.msixAt = at;
                int control = walk.function.readConfig(at + PciRegisters.MSIX_CONTROL, 2);
                walk.msixVectors = (control & PciRegisters.MSIX_SIZE) + 1;
            }
            at = walk.read8(at + 1) & ~3;
        }
    }

    private static void structure(Walk walk, int at) {
        if (at + PciRegisters.CAP_BYTES > PciRegisters.CONFIG_BYTES) {
            walk.passedOver.add("a capability at 0x%02x, beyond the end".formatted(at));
            return;
        }
        int type = walk.read8(at + PciRegisters.CAP_TYPE);
        boolean shared = type == PciRegisters.TYPE_SHARED_MEMORY;
        if (!shared && (type < PciRegisters.TYPE_COMMON || type > PciRegisters.TYPE_DEVICE)) {
            // Reserved, or of no use here.
            return;
        }
        int wanted =
                switch (type) {
                    case PciRegisters.TYPE_NOTIFY -> PciRegisters.NOTIFY_OFF_MULTIPLIER + 4;
                    case PciRegisters.TYPE_SHARED_MEMORY -> PciRegisters.CAP64_BYTES;
                    default -> PciRegisters.CAP_BYTES;
                };
        int length = walk.read8(at + PciRegisters.CAP_LEN);
        if (length < wanted || at + length > PciRegisters.CONFIG_BYTES) {
            pass(
                    walk,
                    type,
                    at,
                    "a length of %d, limits are %d and %d"
                            .formatted(length, wanted, PciRegisters.CONFIG_BYTES - at));
            return;
        }
        int bar = walk.read8(at + PciRegisters.CAP_BAR);
        long offset = walk.read32(at + PciRegisters.CAP_OFFSET);
        long bytes = walk.read32(at + PciRegisters.CAP_LENGTH);
        if (shared) {
            offset |= walk.read32(at + PciRegisters.CAP_OFFSET_HIGH) << 32;
            bytes |= walk.read32(at + PciRegisters.CAP_LENGTH_HIGH) << 32;
        }
        if (bar >= PciRegisters.BARS) {
            pass(walk, type, at, "reserved BAR %d".formatted(bar));
        } else if (walk.function.barBytes(bar) == 0) {
            pass(walk, type, at, "BAR %d, which cannot be mapped".formatted(bar));
        } else if (offset < 0 || bytes < 0 || bytes > walk.function.barBytes(bar) - offset) {
            pass(
                    walk,
                    type,
                    at,
                    "%s bytes from %s on of BAR %d, which has %d"
                            .formatted(
                                    Long.toUnsignedString(bytes),
                                    Long.toUnsignedString(offset),
                                    bar,
                                    walk.function.barBytes(bar)));
        } else if (bytes < least(type)) {
            pass(walk, type, at, "%d bytes, the least is %d".formatted(bytes, least(type)));
        } else if (offset % alignment(type) != 0) {
            pass(walk, type, at, "offset %d, no multiple of %d".formatted(offset, alignment(type)));
        } else if (shared) {
            walk.shared.putIfAbsent(
                    walk.read8(at + PciRegisters.CAP_ID), new Structure(bar, offset, bytes));
        } else if (walk.found[type] == null) {
            walk.found[type] = new Structure(bar, offset, bytes);
            if (type == PciRegisters.TYPE_NOTIFY) {
                walk.multiplier = walk.read32(at + PciRegisters.NOTIFY_OFF_MULTIPLIER);
            }
        }
    }

    private static void pass(Walk walk, int type, int at, String why) {
        walk.passedOver.add("the %s capability at 0x%02x has %s".formatted(name(type), at, why));
    }

    private static int least(int type) {
        return switch (type) {
            case PciRegisters.TYPE_COMMON -> PciRegisters.COMMON_BYTES;
            case PciRegisters.TYPE_NOTIFY -> 2;
            default -> 1;
        };
    }

    private static int alignment(int type) {
        return switch (type) {
            case PciRegisters.TYPE_NOTIFY -> 2;
            case PciRegisters.TYPE_ISR -> 1;
            default -> 4;
        };
    }
}
