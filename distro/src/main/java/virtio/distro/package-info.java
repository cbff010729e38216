/** Starts the distribution. */
package virtio.distro;
