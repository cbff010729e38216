/** Virtio over memory-mapped registers. */
package virtio.transport.mmio;
