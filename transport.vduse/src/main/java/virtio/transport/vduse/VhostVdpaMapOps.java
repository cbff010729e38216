package virtio.transport.vduse;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.MapOps;
import virtio.api.map.RegionMapOps;

/** Map operations of all vhost-vdpa devices; the token is the device's {@link IovaDomain}. */
@Component(service = MapOps.class)
public final class VhostVdpaMapOps extends RegionMapOps {}
