/** Runs Jupiter tests inside the framework that Pax Exam starts. */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.exam;
