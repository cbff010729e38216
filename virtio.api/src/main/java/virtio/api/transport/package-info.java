/**
 * What the author of a transport implements and meets, for the driver end and for the device end.
 */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.api.transport;
