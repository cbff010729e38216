package virtio.bench;

import java.io.IOException;
import java.util.Arrays;

/** What {@code ./virtio bench} runs. */
public final class Main {
    private static final String USAGE =
            """
            usage: virtio bench blk [--iodepth=1,32] [--mode=poll,interrupt] [--runtime=2] [--rounds=5]
                     4 KiB random reads from qemu-storage-daemon over vhost-user, against libblkio
                   virtio bench net [--layout=split,packed] [--traffic=tx,rx,io] [--millis=400] [--rounds=15]
                     64-byte frames over vhost-user to DPDK's testpmd, against its own front-end
                   virtio bench swap [--swaps=100] [--iodepth=16]
                     pause of a swap under load, between mmio and vhost-user to a second process
                   virtio bench ring [--layout=split,packed] [--workload=poll,event,burst,inorder,map]
                            [--forks=4] [--millis=1500] [--batch=32]
                     both ends of a virtqueue against C compiled on this machine, by gcc
                   virtio bench map [--bytes=4096,131072] [--forks=3] [--millis=1000]
                     map operations of a vDPA device, a bounced buffer against zero copy
                   virtio bench start [--rounds=10]
                     time to the first completed read of a new container, and its resident memory
            each with [--json]
            """;

    private Main() {}

    /** Exit status: 0 measured, 1 failed, 2 wrong use. */
    public static void main(String[] args) {
        int exit = 0;
        try {
            run(args);
        } catch (IllegalArgumentException e) {
            System.err.println("virtio bench: " + e.getMessage());
            System.err.print(USAGE);
            exit = 2;
        } catch (IOException e) {
            System.err.println("virtio bench: " + e.getMessage());
            exit = 1;
        } catch (Exception e) {
            e.printStackTrace();
            exit = 1;
        }
        // The container's threads would keep the process.
        System.exit(exit);
    }

    private static void run(String[] args) throws Exception {
        String[] rest = args.length == 0 ? args : Arrays.copyOfRange(args, 1, args.length);
        switch (args.length == 0 ? "" : args[0]) {
            case "blk" -> BlkBench.run(new Options(BlkBench.DEFAULTS, rest));
            case "net" -> NetBench.run(new Options(NetBench.DEFAULTS, rest));
            case "ring" -> RingBench.run(new Options(RingBench.DEFAULTS, rest));
            case "swap" -> SwapBench.run(new Options(SwapBench.DEFAULTS, rest));
            case "map" -> MapBench.run(new Options(MapBench.DEFAULTS, rest));
            case "start" -> StartBench.run(new Options(StartBench.DEFAULTS, rest));
            case "-h", "--help" -> System.out.print(USAGE);
            case "" -> throw new IllegalArgumentException("no benchmark is named");
            default -> throw new IllegalArgumentException("no benchmark " + args[0]);
        }
    }
}
