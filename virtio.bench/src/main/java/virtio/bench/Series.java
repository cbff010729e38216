package virtio.bench;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** Values of one kind, from all rounds. */
final class Series {
    private final List<Double> values = new ArrayList<>();

    void add(double value) {
        values.add(value);
        Collections.sort(values);
    }

    int count() {
        return values.size();
    }

    double min() {
        return values.getFirst();
    }

    double median() {
        return percentile(50);
    }

    double max() {
        return values.getLast();
    }

    /** The smallest value that {@code percent} of all do not exceed. */
    double percentile(double percent) {
        int rank = (int) Math.ceil(percent / 100 * values.size());
        return values.get(Math.max(rank, 1) - 1);
    }
}
