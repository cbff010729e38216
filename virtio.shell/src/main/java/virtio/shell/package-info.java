/** Gogo commands, scope virtio. */
package virtio.shell;
