/** The network device in software (virtio 5.1). */
package virtio.backend.net;
