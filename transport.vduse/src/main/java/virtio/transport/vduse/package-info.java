/** Virtio through the kernel's vDPA: the driver end is vhost-vdpa, the device end is VDUSE. */
package virtio.transport.vduse;
