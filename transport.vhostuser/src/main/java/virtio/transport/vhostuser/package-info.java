/** Virtio over vhost-user sockets. */
package virtio.transport.vhostuser;
