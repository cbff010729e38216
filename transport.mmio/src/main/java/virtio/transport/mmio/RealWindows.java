package virtio.transport.mmio;

import virtio.api.VirtioException;
import virtio.api.map.RegionMemory;
import virtio.api.transport.Candidate;
import virtio.api.transport.Transport;
import virtio.linux.Linux;
import virtio.linux.PhysicalMemory;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The windows of the machine: {@code mmio:0xfeb02e00}, with an option {@code
 * ,interrupt=/dev/uio0|poll} for who does not want the interrupts of the UIO device that is bound
 * to it.
 */
final class RealWindows {
    private static final String OPTION = "interrupt=";
    private static final String POLL = "poll";

    private final Path root;
    private final int pageCount;
    private final Set<Long> driven = ConcurrentHashMap.newKeySet();

    /**
     * Those of a machine.
     *
     * @param root the root of its file system
     * @param pageCount huge pages that each device gets
     */
    RealWindows(Path root, int pageCount) {
        this.root = root;
        this.pageCount = pageCount;
    }

    /** Whether the address is one of the machine, and no name. */
    static boolean isReal(String address) {
        return address.startsWith("0x");
    }

    List<Candidate> discover() {
        List<Candidate> candidates = new ArrayList<>();
        for (PlatformDevice device : PlatformDevice.find(root)) {
            candidates.add(
                    new Candidate(
                            device.address() == 0
                                    ? "mmio:" + device.name()
                                    : "mmio:0x%x".formatted(device.address()),
                            "virtio-mmio window %s, %s"
                                    .formatted(
                                            device.name(),
                                            device.uio() == null
                                                    ? "polled (no interrupts without "
                                                            + PlatformDevice.UIO_DRIVER
                                                            + ")"
                                                    : "interrupts by " + device.uio()),
                            unavailable(device)));
        }
        return candidates;
    }

    private String unavailable(PlatformDevice device) {
        if (driven.contains(device.address())) {
            return "driven in this container: detach it there first";
        }
        if (device.driver() != null && !device.driver().equals(PlatformDevice.UIO_DRIVER)) {
            return "bound to %s: give it to user space with: %s"
                    .formatted(device.driver(), device.unbind());
        }
        if (device.address() == 0) {
            return "its address is hidden: only root may read it in /proc/iomem";
        }
        String denied = Linux.unavailable(root.resolve("dev/mem")).orElse(null);
        if (denied == null && device.uio() != null) {
            denied = Linux.unavailable(device.uio()).orElse(null);
        }
        if (denied != null) {
            return denied + ": run as root, on a kernel with CONFIG_DEVMEM";
        }
        return PhysicalMemory.freePages(root) >= pageCount
                ? null
                : HugePageMemory.lacking(root, pageCount);
    }

    Transport open(String text) throws VirtioException {
        String[] parts = text.split(",", 2);
        long address = address(text, parts[0]);
        String name = "0x%x".formatted(address);
        PlatformDevice device = null;
        for (PlatformDevice found : PlatformDevice.find(root)) {
            if (found.address() == address) {
                device = found;
            }
        }
        if (device != null
                && device.driver() != null
                && !device.driver().equals(PlatformDevice.UIO_DRIVER)) {
            throw new VirtioException("mmio:%s is %s".formatted(name, unavailable(device)));
        }
        Path uio = device == null ? null : device.uio();
        if (parts.length == 2) {
            uio = uio(text, parts[1]);
        }
        if (!driven.add(address)) {
            throw new VirtioException(
                    "mmio:%s is driven in this container: detach it there first".formatted(name));
        }
        MappedWindow window;
        try {
            window =
                    MappedWindow.open(
                            name,
                            root.resolve("dev/mem"),
                            address,
                            device == null ? PlatformDevice.SIZE_BYTES : device.sizeBytes(),
                            uio,
                            () -> driven.remove(address));
        } catch (VirtioException | RuntimeException e) {
            driven.remove(address);
            throw e;
        }
        RegionMemory memory = null;
        try {
            // Before memory is taken for it.
            MmioTransport.identify(name, window);
            memory = HugePageMemory.create(root, name, pageCount);
            MmioTransport transport = new MmioTransport(name, window, memory);
            window.attach(transport, memory);
            return transport;
        } catch (VirtioException | RuntimeException e) {
            window.detach(null);
            if (memory != null) {
                memory.release();
            }
            throw e;
        }
    }

    private static long address(String text, String number) throws VirtioException {
        try {
            long address = Long.parseLong(number.substring(2), 16);
            if (address % Integer.BYTES == 0 && address > 0 && address <= Long.MAX_VALUE >> 4) {
                return address;
            }
        } catch (NumberFormatException e) {
            // As below.
        }
        throw new VirtioException(
                "mmio:%s is no address of registers: 0x and up to 15 hexadecimal digits, a multiple of 4"
                        .formatted(text));
    }

    private Path uio(String text, String option) throws VirtioException {
        String value = option.startsWith(OPTION) ? option.substring(OPTION.length()) : "";
        if (value.equals(POLL)) {
            return null;
        }
        if (!value.startsWith("/")) {
            throw new VirtioException(
                    "mmio:%s: expected %s%s or %s/dev/uio0".formatted(text, OPTION, POLL, OPTION));
        }
        return root.resolve(value.substring(1));
    }
}
