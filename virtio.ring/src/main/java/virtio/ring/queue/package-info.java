/** Virtqueues, both ends: the driver's and the device's. */
package virtio.ring.queue;
