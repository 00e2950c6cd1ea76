import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.listener.ContainerProperties;
import org.springframework.kafka.listener.KafkaMessageListenerContainer;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import org.springframework.kafka.requestreply.RequestReplyFuture;
import org.springframework.kafka.support.TopicPartitionOffset;

/**
 * Spring's own replying client, with nothing of ours: sends each line of its input as a command, waits for every reply
 * and prints it behind the number of its line. The template makes up the correlation ids and, where it listens to one
 * partition, names that partition; where it listens as a group, it names the topic only.
 *
 * Arguments: bootstrap servers, topic of the commands, topic of the replies, partition of the replies or "group".
 */
public class Replying {
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    public static void main(String[] arguments) throws Exception {
        String servers = arguments[0];
        String commands = arguments[1];
        ContainerProperties listening = listening(arguments[2], arguments[3]);
        var consumers = new DefaultKafkaConsumerFactory<String, String>(reading(servers));
        var container = new KafkaMessageListenerContainer<String, String>(consumers, listening);
        var producers = new DefaultKafkaProducerFactory<String, String>(writing(servers));
        var template = new ReplyingKafkaTemplate<String, String, String>(producers, container);
        template.setDefaultReplyTimeout(PATIENCE);
        template.afterPropertiesSet();
        template.start();
        int code = 1;
        try {
            if (!template.waitForAssignment(PATIENCE)) {
                throw new IllegalStateException("nothing was assigned");
            }
            exchange(template, commands);
            code = 0;
        } catch (Exception failure) {
            failure.printStackTrace();
        }
        // Its schedulers would keep the process alive.
        System.out.flush();
        System.exit(code);
    }

    private static void exchange(ReplyingKafkaTemplate<String, String, String> template, String commands)
            throws Exception {
        List<RequestReplyFuture<String, String, String>> waiting = new ArrayList<>();
        List<String> lines = new String(System.in.readAllBytes(), StandardCharsets.UTF_8).lines().toList();
        for (String line : lines) {
            waiting.add(template.sendAndReceive(new ProducerRecord<>(commands, "key-" + waiting.size(), line)));
        }
        for (int number = 0; number < lines.size(); number++) {
            ConsumerRecord<String, String> reply = waiting.get(number).get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
            Header status = reply.headers().lastHeader("status_code");
            System.out.println(String.join("\t", Integer.toString(number), Integer.toString(reply.partition()),
                    new String(status.value(), StandardCharsets.UTF_8), reply.value()));
        }
    }

    private static ContainerProperties listening(String replies, String place) {
        ContainerProperties properties = place.equals("group")
                ? new ContainerProperties(replies)
                : new ContainerProperties(new TopicPartitionOffset(replies, Integer.parseInt(place)));
        properties.setGroupId("replying-" + System.nanoTime());
        return properties;
    }

    private static Map<String, Object> reading(String servers) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", servers);
        settings.put("isolation.level", "read_committed");
        settings.put("auto.offset.reset", "earliest");
        settings.put("key.deserializer", StringDeserializer.class);
        settings.put("value.deserializer", StringDeserializer.class);
        return settings;
    }

    private static Map<String, Object> writing(String servers) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", servers);
        settings.put("key.serializer", StringSerializer.class);
        settings.put("value.serializer", StringSerializer.class);
        return settings;
    }
}
