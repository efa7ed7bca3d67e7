import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;

/**
 * Apache Curator's own service discovery, for the tests of what is to be found by it:
 *
 * <pre>
 * Peer HOSTS BASE find SERVICE                   a line "ID HOST PORT METADATA" for each instance
 * Peer HOSTS BASE register SERVICE ID HOST PORT  until its standard input ends
 * </pre>
 */
public final class Peer {
    public static void main(String[] arguments) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(arguments[0], new RetryOneTime(1000));
        client.start();
        ServiceDiscovery<HashMap> discovery =
                ServiceDiscoveryBuilder.builder(HashMap.class).client(client).basePath(arguments[1]).build();
        discovery.start();
        String service = arguments[3];
        if (arguments[2].equals("find")) {
            for (ServiceInstance<HashMap> found : discovery.queryForInstances(service)) {
                Map<?, ?> metadata = found.getPayload() == null ? Map.of() : new TreeMap<>(found.getPayload());
                System.out.println(found.getId() + " " + found.getAddress() + " " + found.getPort() + " " + metadata);
            }
        } else {
            HashMap<String, String> metadata = new HashMap<>();
            metadata.put("zone", "java");
            discovery.registerService(ServiceInstance.<HashMap>builder()
                    .name(service)
                    .id(arguments[4])
                    .address(arguments[5])
                    .port(Integer.parseInt(arguments[6]))
                    .payload(metadata)
                    .build());
            System.out.println("registered");
            while (System.in.read() >= 0) {}
        }
        discovery.close();
        client.close();
    }
}
