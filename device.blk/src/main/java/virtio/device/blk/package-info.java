/** Driver for virtio block devices. */
package virtio.device.blk;
