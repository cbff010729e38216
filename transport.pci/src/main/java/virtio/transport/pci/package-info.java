/** Virtio over PCI. */
package virtio.transport.pci;
