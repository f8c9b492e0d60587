//! The service as it stands on a socket: slow, large and many callers, and callers without a good token.

mod world;

use std::time::{Duration, Instant};

use keyferry_control::{Limits, Listen, Server};
use keyferry_store::testing::TestDatabase;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use world::World;

/// A service that is impatient.
struct Served {
    world: World,
    address: String,
    _database: TestDatabase,
}

const LIMITS: Limits = Limits {
    connections: 6,
    connections_of_one: 4,
    handshake: Duration::from_millis(500),
    head: Duration::from_millis(500),
    body: Duration::from_millis(500),
};

impl Served {
    async fn within(limits: Limits) -> Self {
        let database = TestDatabase::sqlite();
        let world = World::on(&database).await;
        let listen = Listen::Tcp("127.0.0.1:0".parse().expect("an address"));
        let server = Server::open(&listen, None).await.expect("it listens").within(limits);
        let address = server.address.clone();
        tokio::spawn(server.run(world.router.clone(), std::future::pending()));
        Self { world, address, _database: database }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("it accepts")
    }

    /// What is answered to these bytes until the connection is closed, and after how long.
    async fn told(&self, bytes: &[u8]) -> (String, Duration) {
        let (mut connection, began) = (self.connect().await, Instant::now());
        // It may be closed before all of it was sent.
        let _ = connection.write_all(bytes).await;
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut answer));
        let _ = reading.await.expect("it is closed in time");
        (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
    }

    /// The status of one request, and how long it took.
    async fn asked(&self, token: &str) -> (String, Duration) {
        let request = format!(
            "GET /api/v1/api_keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        let (answer, took) = self.told(request.as_bytes()).await;
        (answer.split(' ').nth(1).unwrap_or_default().to_owned(), took)
    }

    fn post(&self, length: &str) -> String {
        let key = &self.world.key;
        format!(
            "POST /api/v1/principals HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{length}\r\n\r\n"
        )
    }
}

#[tokio::test]
async fn t32_a_head_and_a_body_that_do_not_come_are_not_waited_for() {
    let served = Served::within(LIMITS).await;
    // Nothing, a part of a head, and silence after a whole request
    for sent in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: ", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"]
    {
        let (answer, took) = served.told(sent.as_bytes()).await;
        assert!(took < Duration::from_secs(10), "{sent:?}: {took:?}");
        assert_eq!(answer.contains("200 OK"), sent.ends_with("\r\n\r\n"), "{sent:?}: {answer}");
    }
    // A body that stands still, announced or in chunks
    for length in ["content-length: 100", "transfer-encoding: chunked"] {
        let (answer, took) = served
            .told(
                format!("{}{{", served.post(length))
                    .replace("chunked\r\n\r\n{", "chunked\r\n\r\n1\r\n{\r\n")
                    .as_bytes(),
            )
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("the body did not come in time"),
            "{answer}"
        );
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[tokio::test]
async fn t32_one_address_leaves_connections_for_others() {
    let served = Served::within(Limits { head: Duration::from_secs(30), ..LIMITS }).await;
    let mut idle = Vec::new();
    for _ in 0..LIMITS.connections_of_one {
        let mut connection = served.connect().await;
        connection.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("sent");
        idle.push(connection);
    }
    // One more of the same address is closed at once; from elsewhere it is served.
    let (answer, took) = served.told(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answer, "");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let elsewhere = tokio::net::TcpSocket::new_v4().expect("a socket");
    elsewhere.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
    let mut elsewhere =
        elsewhere.connect(served.address.parse().expect("an address")).await.expect("it accepts");
    elsewhere
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    elsewhere.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Whoever leaves makes room.
    idle.clear();
    let until = Instant::now() + Duration::from_secs(10);
    while served.asked(&served.world.key).await.0 != "200" {
        assert!(Instant::now() < until, "there is no room again");
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_has_come() {
    let served = Served::within(Limits { body: Duration::from_secs(30), ..LIMITS }).await;
    let (answer, took) = served.told(served.post("content-length: 9000000").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(took < Duration::from_secs(10), "not one byte was waited for: {took:?}");
    let mut chunks = served.post("transfer-encoding: chunked").into_bytes();
    for _ in 0..20 {
        chunks.extend(b"10000\r\n");
        chunks.extend([b' '; 0x10000]);
        chunks.extend(b"\r\n");
    }
    let (answer, _) = served.told(&chunks).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") || answer.is_empty(), "{answer}");
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(1_000_000));
    let (answer, _) = served.told(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    assert_eq!(served.asked(&served.world.key).await.0, "200", "everybody else is served");
}

#[tokio::test]
async fn t68_wrong_tokens_wait_and_good_ones_do_not() {
    let served = Served::within(LIMITS).await;
    let wrong = format!("iak_{}", "a".repeat(64));
    let mut took = Vec::new();
    for _ in 0..8 {
        let (status, time) = served.asked(&wrong).await;
        assert_eq!(status, "401");
        took.push(time);
    }
    // The sixth waits 100 ms, the seventh 200, the eighth 400.
    for (time, least) in took[5..].iter().zip([100, 200, 400]) {
        assert!(*time >= Duration::from_millis(least), "{took:?}");
    }
    // The ninth would wait 800 ms: the good one does not, though it comes from the same address meanwhile.
    let (wrong, good) = tokio::join!(served.asked(&wrong), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        served.asked(&served.world.key).await
    });
    assert_eq!((wrong.0.as_str(), good.0.as_str()), ("401", "200"));
    assert!(wrong.1 >= Duration::from_millis(800) && good.1 < wrong.1, "{good:?} beside {wrong:?}");
}

#[tokio::test]
async fn t72_a_page_in_a_browser_learns_nothing() {
    let database = TestDatabase::sqlite();
    let world = World::on(&database).await;
    for (method, with_key) in [("GET", true), ("GET", false), ("OPTIONS", true), ("OPTIONS", false)] {
        let mut request = http::Request::builder().method(method).uri("/api/v1/api_keys");
        request = request.header("origin", "https://evil.test").header("host", "rebound.evil.test:7443");
        request = request.header("access-control-request-method", "GET");
        // What a browser sends by itself is no credential here.
        request = request.header("cookie", format!("token={0}; session={0}", world.key));
        if with_key {
            request = request.header("authorization", format!("Bearer {}", world.key));
        }
        let answer = world.raw(request.body(axum::body::Body::empty()).expect("a request")).await;
        let expected = if method == "OPTIONS" {
            405
        } else if with_key {
            200
        } else {
            401
        };
        let answer = answer.is(expected);
        assert!(
            !answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")),
            "{answer:?}"
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    }
}

#[tokio::test]
async fn t75_no_url_in_a_secret_makes_control_connect_anywhere() {
    let database = TestDatabase::sqlite();
    let world = World::on(&database).await;
    let trap = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let at = trap.local_addr().expect("an address");
    let value = |text: String| json!({ "source_type": "control_plane", "secret": text });
    let rules = json!([{ "host": "a.test" }]);
    let principal = world.principal("p").await;
    let mut made = 0;
    for (kind, mut secret) in [
        (
            "oauth_token",
            json!({
                "grant": "client_credentials", "token_endpoint": format!("https://{at}/token"),
                "credentials": { "client_id": value("a".into()), "client_secret": value("b".into()) },
            }),
        ),
        (
            "gcp_auth",
            json!({
                "scopes": ["https://x.test/a"],
                "keyfile": value(json!({ "type": "service_account", "token_uri": format!("http://{at}/token") }).to_string()),
            }),
        ),
        (
            "pg_dsn",
            json!({ "foreign_id": "db", "database": "d", "dsn": value(format!("postgres://u:p@{at}/d")) }),
        ),
        ("static", json!({ "inject_config": { "header": "X" }, "source": value(format!("http://{at}/")) })),
        (
            "static",
            json!({
                "inject_config": { "header": "Y" },
                "source": { "source_type": "vault_kv", "config": { "mount": format!("http://{at}/"), "path": "x" } },
            }),
        ),
    ] {
        if kind != "pg_dsn" {
            secret["rules"] = rules.clone();
        }
        let answer = world.post(&format!("/api/v1/{kind}_secrets"), secret).await;
        if answer.status != 201 {
            // Refused is as good.
            answer.is(422);
            continue;
        }
        made += 1;
        let key = format!("{kind}_secret_id");
        world.post("/api/v1/grants", json!({ "principal_id": principal, key: answer.id() })).await.is(201);
    }
    assert!(made >= 3, "{made}");
    let (_, token) = world.proxy(Some(&principal)).await;
    world.sync(&token, json!({})).await.is(200);
    world.get(&format!("/api/v1/principals/{principal}/effective_config")).await.is(200);
    let asked = tokio::time::timeout(Duration::from_millis(300), trap.accept()).await;
    assert!(asked.is_err(), "control connected to what a secret names");
}
