package virtio.transport.mmio;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.MapOps;
import virtio.api.map.RegionMapOps;

/**
 * The map operations of all windows: an emulated one knows what is mapped by bus addresses, a real
 * one by physical ones.
 */
@Component(service = MapOps.class)
public final class MmioMapOps extends RegionMapOps {}
