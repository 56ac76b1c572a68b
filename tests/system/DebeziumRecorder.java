import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import java.io.FileOutputStream;
import java.io.FileReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;

/** Debezium's engine by a properties file; appends a line a record to a file: topic, value beside its schema, value alone. */
public final class DebeziumRecorder {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.load(new FileReader(arguments[0]));
        JsonConverter wrapped = new JsonConverter();
        wrapped.configure(Map.of("schemas.enable", "true"), false);
        JsonConverter bare = new JsonConverter();
        bare.configure(Map.of("schemas.enable", "false"), false);
        PrintStream out = new PrintStream(new FileOutputStream(arguments[1], true), true, StandardCharsets.UTF_8);
        DebeziumEngine<?> engine = DebeziumEngine.create(Connect.class)
            .using(settings)
            .using((ok, message, error) -> {
                System.err.println("ended: " + message);
                if (error != null) error.printStackTrace();
                System.exit(ok ? 0 : 1);
            })
            .notifying(event -> {
                SourceRecord record = event.value();
                String topic = record.topic();
                String one = text(wrapped.fromConnectData(topic, record.valueSchema(), record.value()));
                String two = text(bare.fromConnectData(topic, record.valueSchema(), record.value()));
                out.println(topic + "\t" + one + "\t" + two);
            })
            .build();
        engine.run();
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "" : new String(bytes, StandardCharsets.UTF_8);
    }
}
