/** Devices, drivers, virtqueues and the bus on which they meet. */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.api;
