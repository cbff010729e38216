/** The devices themselves, in software: what a backend implements and the queues it is handed. */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.api.backend;
