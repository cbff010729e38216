package example.shm;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.MapOps;
import virtio.api.map.RegionMapOps;

/** The map operations; the token is the driver's {@link ShmMemory}. */
@Component(service = MapOps.class)
public final class ShmMapOps extends RegionMapOps {}
