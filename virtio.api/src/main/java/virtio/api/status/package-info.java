/** Immutable snapshots of what the core knows, for shells, pages and metrics. */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.api.status;
