/**
 * Linux system calls for virtio: memory that is shared by descriptor, eventfd, epoll, ioctl, UNIX
 * sockets that carry descriptors.
 *
 * <p>The only package here that calls restricted methods of {@link java.lang.foreign}. It says
 * nothing about virtio itself. Calls that wait hold on to their carrier when made in a virtual
 * thread. Linux 5.8 or later on x86-64 or aarch64.
 */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.linux;
