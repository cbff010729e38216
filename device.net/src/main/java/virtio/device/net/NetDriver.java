package virtio.device.net;

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
import virtio.api.net.NetDevice;

import java.util.Dictionary;
import java.util.Hashtable;
import java.util.function.Function;

/** Drives network devices (virtio 5.1) and registers each as a {@link NetDevice}. */
@Component
public final class NetDriver implements VirtioDriver {
    private final Function<NetDevice, Runnable> announce;

    /** Registers cards in this bundle's name. */
    @Activate
    public NetDriver(BundleContext context) {
        this(card -> register(context, card));
    }

    NetDriver(Function<NetDevice, Runnable> announce) {
        this.announce = announce;
    }

    private static Runnable register(BundleContext context, NetDevice card) {
        Dictionary<String, Object> properties = new Hashtable<>();
        properties.put(VirtioDevice.NAME, card.name());
        ServiceRegistration<NetDevice> registration =
                context.registerService(NetDevice.class, card, properties);
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
        return DeviceType.NETWORK;
    }

    @Override
    public Features wanted(Features offered, ConfigSpace config) {
        return NetLimits.wanted(offered, config);
    }

    @Override
    public Bound probe(VirtioDevice device) throws VirtioException {
        return new NetCard(device, announce);
    }
}
