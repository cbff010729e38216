/**
 * What a transport says about memory: the map operations of Linux 6.18 and ready-made parts for
 * them.
 */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.api.map;
