package virtio.device.blk;

import org.osgi.framework.BundleContext;
import org.osgi.framework.ServiceRegistration;
import org.osgi.service.component.annotations.Activate;
import org.osgi.service.component.annotations.Component;

import virtio.api.ConfigSpace;
import virtio.api.DeviceType;
import virtio.api.Features;
import virtio.api.VirtioDevice;
import virtio.api.VirtioDriver;
import virtio.api.VirtioException;
import virtio.api.block.BlockDevice;

import java.util.Dictionary;
import java.util.Hashtable;
import java.util.function.Function;

/** Drives block devices (virtio 5.2) and registers each as a {@link BlockDevice}. */
@Component
public final class BlkDriver implements VirtioDriver {
    private final Function<BlockDevice, Runnable> announce;

    /** Registers disks in this bundle's name. */
    @Activate
    public BlkDriver(BundleContext context) {
        this(disk -> register(context, disk));
    }

    BlkDriver(Function<BlockDevice, Runnable> announce) {
        this.announce = announce;
    }

    private static Runnable register(BundleContext context, BlockDevice disk) {
        Dictionary<String, Object> properties = new Hashtable<>();
        properties.put(VirtioDevice.NAME, disk.name());
        ServiceRegistration<BlockDevice> registration =
                context.registerService(BlockDevice.class, disk, properties);
        return () -> {
            try {
                registration.unregister();
            } catch (IllegalStateException e) {
                // The framework was quicker: the bundle has stopped.
            }
        };
    }

    @Override
    public int deviceType() {
        return DeviceType.BLOCK;
    }

    @Override
    public Features wanted(Features offered, ConfigSpace config) throws VirtioException {
        BlkLimits.refuseZoned(offered, config);
        return offered.and(BlkLimits.WANTED);
    }

    @Override
    public Bound probe(VirtioDevice device) throws VirtioException {
        return new BlkDevice(device, announce);
    }
}
