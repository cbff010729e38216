/** The driver for network cards (virtio 5.1). */
package virtio.device.net;
