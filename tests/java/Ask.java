import java.net.Authenticator;
import java.net.PasswordAuthentication;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

/** Two requests by Java's HttpClient. Arguments: URL, API key. */
public class Ask {
    public static void main(String[] arguments) throws Exception {
        // The client takes the proxy's address from the system's properties, but no password. With an
        // authenticator it drops an Authorization that the program sets.
        var client = HttpClient.newBuilder().authenticator(new Authenticator() {
            @Override
            protected PasswordAuthentication getPasswordAuthentication() {
                if (getRequestorType() != RequestorType.PROXY) return null;
                return new PasswordAuthentication(
                        System.getProperty("https.proxyUser"),
                        System.getProperty("https.proxyPassword").toCharArray());
            }
        }).build();
        for (int n = 0; n < 2; n++) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                    .header("X-Api-Key", arguments[1])
                    .build();
            var answer = client.send(request, BodyHandlers.ofString());
            System.out.println(answer.body());
            if (answer.statusCode() != 200) System.exit(1);
        }
    }
}
