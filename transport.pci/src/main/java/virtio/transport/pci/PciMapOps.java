package virtio.transport.pci;

import org.osgi.service.component.annotations.Component;

import virtio.api.map.MapOps;
import virtio.api.map.RegionMapOps;

/** The map operations of all PCI functions. */
@Component(service = MapOps.class)
public final class PciMapOps extends RegionMapOps {}
