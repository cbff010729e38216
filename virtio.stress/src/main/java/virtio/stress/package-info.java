/** What both ends of a ring promise each other about the order of memory, by jcstress. */
package virtio.stress;
