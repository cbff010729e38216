package virtio.transport.vhostuser;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.MapOps;
import virtio.api.map.RegionMapOps;

/** Map operations of all vhost-user devices; the token is the device's {@link SharedRegions}. */
@Component(service = MapOps.class)
public final class VhostUserMapOps extends RegionMapOps {}
