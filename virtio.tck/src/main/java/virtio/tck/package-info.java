/**
 * The conformance kit that the author of a transport runs: contracts to extend, map operations that
 * show a forgotten sync, and a device that misbehaves on demand.
 *
 * <p>{@link TransportContract}, {@link QueueContract}, {@link MapOpsContract} and {@link
 * MapOpsLoadContract} are Jupiter classes whose subclass says with one method what is under test; a
 * test is tagged with the clauses of the specification that it holds a transport to.
 *
 * <p>Who writes a driver has {@link RogueTransport}, a driver end with that misbehaving device, and
 * {@link CopyingMapOps}.
 */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.tck;
