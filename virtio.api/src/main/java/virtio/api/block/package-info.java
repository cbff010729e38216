/**
 * The virtio block device: the service that consumers use and the wire constants both ends share.
 */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.api.block;
