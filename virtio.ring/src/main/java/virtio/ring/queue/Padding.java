package virtio.ring.queue;

/**
 * 128 bytes in front of a queue's state: driver and device run on two cores, and their objects may
 * be neighbours on the heap.
 */
abstract class Padding {
    /** Fills the gap behind the object header, which would else take a field of a subclass. */
    int p;

    long p0;
    long p1;
    long p2;
    long p3;
    long p4;
    long p5;
    long p6;
    long p7;
    long p8;
    long p9;
    long p10;
    long p11;
    long p12;
    long p13;
    long p14;
    long p15;
}
