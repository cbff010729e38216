/**
 * The conformance kit that the author of a transport runs: contracts to extend, a map of memory
 * that shows a forgotten sync, and a device that misbehaves on demand.
 *
 * <p>{@link TransportContract} and {@link MapOpsContract} are Jupiter classes whose subclass says
 * with one method what is under test; a test is tagged with the clauses of the specification that
 * it holds a transport to.
 */
@org.osgi.annotation.bundle.Export
@org.osgi.annotation.versioning.Version("1.0.0")
package virtio.tck;
