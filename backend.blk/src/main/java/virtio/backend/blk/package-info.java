/** Block devices in software: RAM and file. */
package virtio.backend.blk;
