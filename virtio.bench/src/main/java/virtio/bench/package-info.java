/** Benchmarks: JMH, and side by side with other programs. */
package virtio.bench;
