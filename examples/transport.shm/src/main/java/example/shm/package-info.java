/** Virtio over one memory-mapped file that both ends open: {@code shm:/path/to/file}. */
package example.shm;
