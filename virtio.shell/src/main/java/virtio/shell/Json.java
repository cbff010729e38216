package virtio.shell;

import virtio.api.Features;

import java.lang.reflect.RecordComponent;
import java.util.Iterator;
import java.util.Map;

/** Records, maps, lists and plain values as JSON text. */
final class Json {
    private Json() {}

    static String of(Object value) {
        StringBuilder json = new StringBuilder();
        append(json, value);
        return json.toString();
    }

    private static void append(StringBuilder json, Object value) {
        switch (value) {
            case null -> json.append("null");
            case Boolean plain -> json.append(plain);
            case Number plain -> json.append(plain);
            case Features features -> append(json, features.stream().boxed().toList());
            case Map<?, ?> map -> {
                json.append('{');
                for (Iterator<? extends Map.Entry<?, ?>> it = map.entrySet().iterator();
                        it.hasNext(); ) {
                    Map.Entry<?, ?> entry = it.next();
                    quote(json, entry.getKey().toString());
                    append(json.append(':'), entry.getValue());
                    json.append(it.hasNext() ? "," : "");
                }
                json.append('}');
            }
            case Iterable<?> list -> {
                json.append('[');
                for (Iterator<?> it = list.iterator(); it.hasNext(); ) {
                    append(json, it.next());
                    json.append(it.hasNext() ? "," : "");
                }
                json.append(']');
            }
            case Record record -> {
                RecordComponent[] components = record.getClass().getRecordComponents();
                json.append('{');
                for (int i = 0; i < components.length; i++) {
                    json.append(i == 0 ? "" : ",");
                    quote(json, components[i].getName());
                    append(json.append(':'), component(record, components[i]));
                }
                json.append('}');
            }
            default -> quote(json, value.toString());
        }
    }

    private static Object component(Record record, RecordComponent component) {
        try {
            return component.getAccessor().invoke(record);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(component + " cannot be read", e);
        }
    }

    private static void quote(StringBuilder json, String text) {
        json.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append("\\u%04x".formatted((int) c));
            } else {
                json.append(c);
            }
        }
        json.append('"');
    }
}
