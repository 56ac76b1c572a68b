import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.util.Timestamps;
import dev.feast.FeastClient;
import dev.feast.Row;
import feast.proto.serving.ServingAPIProto.FieldStatus;
import feast.proto.serving.ServingAPIProto.GetOnlineFeaturesRequest;
import feast.proto.serving.ServingServiceGrpc;
import feast.proto.types.ValueProto.RepeatedValue;
import feast.proto.types.ValueProto.Value;
import io.grpc.ManagedChannelBuilder;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;

/**
 * Asks a server in both ways of Feast's Java client: by references with FeastClient, and for a feature service with the
 * stubs that come with it.
 *
 * <p>Standard input is {"references": [...], "service": "...", "entities": [{...}], "context": [{...}]}, a row each;
 * standard output has the rows of both answers, each feature with its value, its status and, by stubs, its time.
 */
public final class FeastAnswers {
    private static final Gson JSON =
        new GsonBuilder().serializeNulls().serializeSpecialFloatingPointValues().create();

    public static void main(String[] arguments) throws Exception {
        var asked = JsonParser.parseReader(new InputStreamReader(System.in, "UTF-8")).getAsJsonObject();
        var port = Integer.parseInt(arguments[0]);
        var answers = new JsonObject();
        answers.add("by_reference", byReference(port, asked));
        answers.add("by_service", byService(port, asked));
        System.out.write(JSON.toJson(answers).getBytes("UTF-8"));
        System.out.flush();
    }

    private static JsonArray byReference(int port, JsonObject asked) throws Exception {
        var references = new ArrayList<String>();
        asked.getAsJsonArray("references").forEach(each -> references.add(each.getAsString()));
        var rows = new ArrayList<Row>();
        for (int index = 0; index < asked.getAsJsonArray("entities").size(); index++) {
            var row = Row.create();
            for (var columns : List.of("entities", "context")) {
                asked.getAsJsonArray(columns).get(index).getAsJsonObject().entrySet()
                    .forEach(column -> row.set(column.getKey(), plain(column.getValue())));
            }
            rows.add(row);
        }
        var found = new JsonArray();
        try (var client = FeastClient.create("127.0.0.1", port)) {
            for (var row : client.getOnlineFeatures(references, rows)) {
                var features = new JsonObject();
                row.getFields().forEach((name, value) -> features.add(name, feature(value, row.getStatus(name))));
                found.add(features);
            }
        }
        return found;
    }

    private static JsonArray byService(int port, JsonObject asked) {
        var request = GetOnlineFeaturesRequest.newBuilder().setFeatureService(asked.get("service").getAsString());
        asked.getAsJsonArray("entities").get(0).getAsJsonObject().keySet()
            .forEach(name -> request.putEntities(name, column(asked.getAsJsonArray("entities"), name)));
        asked.getAsJsonArray("context").get(0).getAsJsonObject().keySet()
            .forEach(name -> request.putRequestContext(name, column(asked.getAsJsonArray("context"), name)));
        var channel = ManagedChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
        try {
            var answer = ServingServiceGrpc.newBlockingStub(channel).getOnlineFeatures(request.build());
            var found = new JsonArray();
            for (int row = 0; row < asked.getAsJsonArray("entities").size(); row++) {
                var features = new JsonObject();
                for (int index = 0; index < answer.getResultsCount(); index++) {
                    var vector = answer.getResults(index);
                    var feature = feature(vector.getValues(row), vector.getStatuses(row));
                    feature.addProperty("event_time_ms", Timestamps.toMillis(vector.getEventTimestamps(row)));
                    features.add(answer.getMetadata().getFeatureNames().getVal(index), feature);
                }
                found.add(features);
            }
            return found;
        } finally {
            channel.shutdownNow();
        }
    }

    private static RepeatedValue column(JsonArray rows, String name) {
        var column = RepeatedValue.newBuilder();
        rows.forEach(row -> {
            var value = plain(row.getAsJsonObject().get(name));
            column.addVal(Row.create().set(name, value).getFields().get(name));
        });
        return column.build();
    }

    /** A JSON value as Feast's Row takes it, which has no flags and no nulls of its own. */
    private static Object plain(JsonElement value) {
        if (value.isJsonNull()) {
            return Value.getDefaultInstance();
        }
        var primitive = value.getAsJsonPrimitive();
        if (primitive.isBoolean()) {
            return Value.newBuilder().setBoolVal(primitive.getAsBoolean()).build();
        }
        if (primitive.isString()) {
            return primitive.getAsString();
        }
        var digits = primitive.getAsString();
        return digits.contains(".") ? (Object) Double.valueOf(digits) : (Object) Long.valueOf(digits);
    }

    private static JsonObject feature(Value value, FieldStatus status) {
        var feature = new JsonObject();
        feature.add("value", json(value));
        feature.addProperty("status", status.name());
        return feature;
    }

    private static JsonElement json(Value value) {
        switch (value.getValCase()) {
            case VAL_NOT_SET: return JsonNull.INSTANCE;
            case INT64_VAL: return new JsonPrimitive(value.getInt64Val());
            case DOUBLE_VAL: return new JsonPrimitive(value.getDoubleVal());
            case STRING_VAL: return new JsonPrimitive(value.getStringVal());
            case BOOL_VAL: return new JsonPrimitive(value.getBoolVal());
            case UNIX_TIMESTAMP_VAL: return new JsonPrimitive(value.getUnixTimestampVal());
            case INT64_LIST_VAL: return JSON.toJsonTree(value.getInt64ListVal().getValList());
            case DOUBLE_LIST_VAL: return JSON.toJsonTree(value.getDoubleListVal().getValList());
            case STRING_LIST_VAL: return JSON.toJsonTree(value.getStringListVal().getValList());
            default: throw new IllegalArgumentException("a value of kind " + value.getValCase());
        }
    }
}
