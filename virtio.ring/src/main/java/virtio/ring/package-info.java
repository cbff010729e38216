/** Virtio core: bus, negotiation, virtqueues, swap. */
package virtio.ring;
