import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.Executors;

/** A JVM service with a pool of threads; it reads its configuration again once a second. */
public final class Service {
    static volatile byte[] conf;

    public static void main(String[] arguments) throws Exception {
        conf = Files.readAllBytes(Path.of("conf"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 64);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            byte[] body = conf;
            Files.writeString(Path.of("log/service.log"), exchange.getRequestURI() + "\n",
                StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        while (true) {
            Thread.sleep(1000);
            conf = Files.readAllBytes(Path.of("conf"));
        }
    }
}
