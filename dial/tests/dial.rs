//! The dialer against real name servers and real listeners on loopback.
//!
//! All of 127.0.0.0/8 is this machine, so one range plays both parts: the guard allows 127.0.1.0/24, which stands for the
//! public Internet, and refuses the rest of loopback, which stands for whatever must not be reached.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod name_server;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use keyferry_config::policy::Host;
use keyferry_dial::{
    AddressClass, DialError, Dialer, DnsFailure, Guard, OwnListeners, Resolver, ResolverOptions,
};
use name_server::{Answer, Asked, NameServer, Transport};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

const PUBLIC: [u8; 4] = [127, 0, 1, 1];
const OTHER_PUBLIC: [u8; 4] = [127, 0, 1, 2];
const INTERNAL: [u8; 4] = [127, 0, 2, 1];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn addresses(list: &[[u8; 4]]) -> Answer {
    Answer::Addresses(list.iter().map(|octets| IpAddr::from(*octets)).collect(), 0)
}

fn no_address() -> Answer {
    Answer::Code(ResponseCode::NoError)
}

fn options(server: &NameServer) -> ResolverOptions {
    ResolverOptions {
        upstream: Some(server.address),
        hosts_file: "/nonexistent/hosts".into(),
        timeout: Duration::from_secs(3),
        ..ResolverOptions::default()
    }
}

fn dialer(server: &NameServer) -> Dialer {
    let guard = Guard::tenant(vec![net("127.0.1.0/24")], None);
    Dialer::new(guard, Resolver::new(options(server)), OwnListeners::default())
}

/// A listener on each address, all on one port.
async fn listen<const N: usize>(on: [[u8; 4]; N]) -> (u16, [TcpListener; N]) {
    'port: loop {
        let mut listeners = Vec::new();
        let mut port = 0;
        for octets in on {
            match TcpListener::bind((IpAddr::from(octets), port)).await {
                Ok(listener) => {
                    port = listener.local_addr().unwrap().port();
                    listeners.push(listener);
                }
                Err(_) => continue 'port,
            }
        }
        return (port, listeners.try_into().unwrap());
    }
}

async fn was_reached(listener: &TcpListener) -> bool {
    tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_ok()
}

fn denied(error: DialError) -> (Host, IpAddr, AddressClass) {
    match error {
        DialError::AddressDenied { host, address, class } => (host, address, class),
        other => panic!("not an address that is denied: {other:?}"),
    }
}

#[tokio::test]
async fn t12_a_name_that_leads_inside_is_refused_with_its_class() {
    let server = NameServer::start(|_, _| addresses(&[INTERNAL, [169, 254, 169, 254]])).await;
    let (port, [internal]) = listen([INTERNAL]).await;
    let refusal = denied(dialer(&server).connect(&host("metadata.test"), port, &[]).await.unwrap_err());
    assert_eq!(refusal, (host("metadata.test"), INTERNAL.into(), AddressClass::Loopback));
    assert!(!was_reached(&internal).await);
}

#[tokio::test]
async fn t12_a_name_that_leads_inside_by_an_ipv6_form_is_refused() {
    for (form, class) in [
        ("::ffff:169.254.169.254", AddressClass::Metadata),
        ("64:ff9b::10.0.0.1", AddressClass::Private),
        ("2002:7f00:1::", AddressClass::Loopback),
        ("fd00:ec2::254", AddressClass::Metadata),
    ] {
        let answer: IpAddr = form.parse().unwrap();
        let server = NameServer::start(move |_, _| Answer::Addresses(vec![answer], 0)).await;
        let refusal = denied(dialer(&server).connect(&host("inside.test"), 443, &[]).await.unwrap_err());
        assert_eq!(refusal, (host("inside.test"), answer.to_canonical(), class));
    }
}

#[tokio::test]
async fn t12_an_address_literal_is_checked_too() {
    let server = NameServer::start(|_, _| Answer::Silence).await;
    let refusal = denied(dialer(&server).connect(&host("127.0.2.1"), 443, &[]).await.unwrap_err());
    assert_eq!(refusal, (host("127.0.2.1"), INTERNAL.into(), AddressClass::Loopback));
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn t12_the_range_of_a_rule_lets_its_request_through() {
    let server = NameServer::start(|_, _| addresses(&[INTERNAL])).await;
    let (port, [_internal]) = listen([INTERNAL]).await;
    let exempt = [net("127.0.2.0/24")];
    let connected = dialer(&server).connect(&host("inside.test"), port, &exempt).await.unwrap();
    assert_eq!(connected.address, SocketAddr::new(INTERNAL.into(), port));
    denied(dialer(&server).connect(&host("inside.test"), port, &[]).await.unwrap_err());
}

#[tokio::test]
async fn t13_the_answer_that_was_checked_is_the_answer_that_is_dialled() {
    // Given a name that is public when first asked and internal ever after, and is never to be cached
    let server = NameServer::start(|asked, before| match (asked.family, before) {
        (RecordType::A, 0) => addresses(&[PUBLIC]),
        (RecordType::A, _) => addresses(&[INTERNAL]),
        _ => no_address(),
    })
    .await;
    let (port, [public, internal]) = listen([PUBLIC, INTERNAL]).await;
    let dialer = dialer(&server);

    // When it is dialled, then the first answer is used, and no second one is asked for
    let connected = dialer.connect(&host("rebind.test"), port, &[]).await.unwrap();
    assert_eq!(connected.address, SocketAddr::new(PUBLIC.into(), port));
    assert_eq!(connected.stream.peer_addr().unwrap(), connected.address);
    assert_eq!(server.times_asked(RecordType::A), 1);
    assert!(was_reached(&public).await);

    // And when it is dialled again, then the new answer is checked like the first
    let refusal = denied(dialer.connect(&host("rebind.test"), port, &[]).await.unwrap_err());
    assert_eq!(refusal, (host("rebind.test"), INTERNAL.into(), AddressClass::Loopback));
    assert_eq!(server.times_asked(RecordType::A), 2);
    assert!(!was_reached(&internal).await);
}

#[tokio::test]
async fn t14_of_a_mixed_answer_only_what_may_be_dialled_is_dialled() {
    let server = NameServer::start(|_, _| addresses(&[INTERNAL, PUBLIC])).await;
    let (port, [public, internal]) = listen([PUBLIC, INTERNAL]).await;
    let connected = dialer(&server).connect(&host("mixed.test"), port, &[]).await.unwrap();
    assert_eq!(connected.address, SocketAddr::new(PUBLIC.into(), port));
    assert!(was_reached(&public).await);
    assert!(!was_reached(&internal).await);
}

#[tokio::test]
async fn t14_the_fallback_never_leaves_the_checked_addresses() {
    // Given an answer whose allowed address refuses connections, while an internal one would accept
    let server = NameServer::start(|_, _| addresses(&[PUBLIC, INTERNAL])).await;
    let (port, [internal]) = listen([INTERNAL]).await;
    let error = dialer(&server).connect(&host("mixed.test"), port, &[]).await.unwrap_err();
    let DialError::Connect { host: of, address, source } = error else { panic!("{error:?}") };
    assert_eq!((of, address), (host("mixed.test"), SocketAddr::new(PUBLIC.into(), port)));
    assert_eq!(source.kind(), ErrorKind::ConnectionRefused);
    assert!(!was_reached(&internal).await);
}

#[tokio::test]
async fn t14_a_pool_can_ask_again_whether_its_address_may_still_be_used() {
    let server = NameServer::start(|_, _| addresses(&[PUBLIC])).await;
    let (port, [_public]) = listen([PUBLIC]).await;
    let connected = dialer(&server).connect(&host("api.test"), port, &[]).await.unwrap();
    let stricter =
        Dialer::new(Guard::tenant(vec![], None), Resolver::new(options(&server)), OwnListeners::default());
    assert_eq!(dialer(&server).check(connected.address, &[]), Ok(()));
    assert_eq!(
        stricter.check(connected.address, &[]).map_err(|refusal| refusal.class),
        Err(AddressClass::Loopback)
    );
}

#[tokio::test]
async fn t15_names_are_asked_for_as_they_stand() {
    // A single label, which a system's search domains would be appended to.
    let server = NameServer::start(|_, _| addresses(&[PUBLIC])).await;
    let (port, [_public]) = listen([PUBLIC]).await;
    for name in ["intranet", "a.b.test"] {
        dialer(&server).connect(&host(name), port, &[]).await.unwrap();
    }
    let mut names: Vec<String> = server.asked().into_iter().map(|asked| asked.name).collect();
    names.sort();
    assert_eq!(names, ["a.b.test.", "a.b.test.", "intranet.", "intranet."]);
}

#[tokio::test]
async fn t15_localhost_is_never_asked_in_dns() {
    let server = NameServer::start(|_, _| addresses(&[PUBLIC])).await;
    for name in ["localhost", "LOCALHOST.", "app.localhost"] {
        let resolver = Resolver::new(options(&server));
        let Host::Name(dns_name) = host(name) else { panic!("{name}") };
        let expected: Vec<IpAddr> = vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(resolver.resolve(&dns_name).await, Ok(expected));
        denied(dialer(&server).connect(&host(name), 443, &[]).await.unwrap_err());
    }
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn t19_our_own_listeners_are_refused_also_to_the_operator() {
    let server = NameServer::start(|_, _| addresses(&[PUBLIC])).await;
    let (port, [ours, other]) = listen([PUBLIC, OTHER_PUBLIC]).await;
    for guard in [
        Guard::tenant(vec![net("127.0.1.0/24")], None),
        Guard::tenant(vec![], Some(vec![])),
        Guard::operator(),
    ] {
        let own = OwnListeners::default();
        let dialer = Dialer::new(guard, Resolver::new(options(&server)), own.clone());
        dialer.connect(&host("loop.test"), port, &[]).await.unwrap();
        assert!(was_reached(&ours).await);

        // When the listener is ours, by name and by address, whatever a rule exempts
        own.replace(vec![ours.local_addr().unwrap()]);
        for target in ["loop.test", "127.0.1.1", "[::ffff:127.0.1.1]"] {
            let exempt = [net("127.0.1.1/32")];
            let refusal = denied(dialer.connect(&host(target), port, &exempt).await.unwrap_err());
            assert_eq!(refusal, (host(target), PUBLIC.into(), AddressClass::OwnListener));
        }
        assert!(!was_reached(&ours).await);

        // And when it is bound to all addresses, then each of ours is refused on that port, and on that port alone
        own.replace(vec![SocketAddr::from(([0, 0, 0, 0], port))]);
        let refusal = denied(dialer.connect(&host("127.0.1.2"), port, &[]).await.unwrap_err());
        assert_eq!(refusal, (host("127.0.1.2"), OTHER_PUBLIC.into(), AddressClass::OwnListener));
        assert!(!was_reached(&other).await);
        let (elsewhere, [_listener]) = listen([OTHER_PUBLIC]).await;
        dialer.connect(&host("127.0.1.2"), elsewhere, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn failures_of_dns_are_told_apart() {
    let cases = [
        (Answer::Code(ResponseCode::NXDomain), DnsFailure::NotFound),
        (no_address(), DnsFailure::NotFound),
        (Answer::Code(ResponseCode::ServFail), DnsFailure::Failure),
        (Answer::Code(ResponseCode::Refused), DnsFailure::Failure),
        (Answer::Silence, DnsFailure::Timeout),
        (Answer::Late(Duration::from_secs(10), Box::new(addresses(&[PUBLIC]))), DnsFailure::Timeout),
    ];
    for (answer, expected) in cases {
        let script = answer.clone();
        let server = NameServer::start(move |_, _| script.clone()).await;
        let timeout = Duration::from_millis(700);
        let resolver = Resolver::new(ResolverOptions { timeout, ..options(&server) });
        let dialer = Dialer::new(Guard::operator(), resolver, OwnListeners::default());
        let started = Instant::now();
        let error = dialer.connect(&host("broken.test"), 443, &[]).await.unwrap_err();
        let DialError::Dns { name, kind } = error else { panic!("{answer:?}: {error:?}") };
        assert_eq!((name.as_str(), kind), ("broken.test", expected), "{answer:?}");
        assert!(started.elapsed() < timeout + Duration::from_millis(500), "{answer:?}");
    }
}

#[tokio::test]
async fn a_late_answer_within_the_limit_is_an_answer() {
    let late = |_: &Asked, _| Answer::Late(Duration::from_millis(400), Box::new(addresses(&[PUBLIC])));
    let server = NameServer::start(late).await;
    let (port, [_public]) = listen([PUBLIC]).await;
    dialer(&server).connect(&host("slow.test"), port, &[]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_drops_one_family_costs_no_timeout() {
    let server = NameServer::start(|asked, _| match asked.family {
        RecordType::A => addresses(&[PUBLIC]),
        _ => Answer::Silence,
    })
    .await;
    let (port, [_public]) = listen([PUBLIC]).await;
    let started = Instant::now();
    dialer(&server).connect(&host("v4only.test"), port, &[]).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_by_tcp() {
    let many: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([127, 0, 1, n])).collect();
    let full = Answer::Addresses(many.clone(), 0);
    let server = NameServer::start(move |asked, _| match asked.transport {
        Transport::Udp => Answer::Truncated,
        Transport::Tcp => full.clone(),
    })
    .await;
    let Host::Name(name) = host("large.test") else { unreachable!() };
    assert_eq!(Resolver::new(options(&server)).resolve(&name).await, Ok(many));
    let by_tcp = Asked { name: "large.test.".into(), family: RecordType::A, transport: Transport::Tcp };
    assert!(server.asked().contains(&by_tcp));
}

#[tokio::test]
async fn an_alias_is_followed_and_its_addresses_are_checked() {
    let server =
        NameServer::start(|_, _| Answer::Alias("target.test.", vec![PUBLIC.into(), INTERNAL.into()])).await;
    let (port, [public, internal]) = listen([PUBLIC, INTERNAL]).await;
    dialer(&server).connect(&host("alias.test"), port, &[]).await.unwrap();
    assert!(was_reached(&public).await);
    assert!(!was_reached(&internal).await);
}

#[tokio::test]
async fn an_answer_is_kept_for_its_ttl_and_not_without_one() {
    for (ttl, expected) in [(300, 1), (0, 3)] {
        let server = NameServer::start(move |asked, _| match asked.family {
            RecordType::A => Answer::Addresses(vec![PUBLIC.into()], ttl),
            _ => no_address(),
        })
        .await;
        let (port, [_public]) = listen([PUBLIC]).await;
        let dialer = dialer(&server);
        for _ in 0..3 {
            dialer.connect(&host("api.test"), port, &[]).await.unwrap();
        }
        assert_eq!(server.times_asked(RecordType::A), expected, "ttl {ttl}");
    }
}

#[tokio::test]
async fn the_hosts_file_is_asked_first_and_alone() {
    let server = NameServer::start(|_, _| addresses(&[OTHER_PUBLIC])).await;
    let folder = tempfile::tempdir().unwrap();
    let hosts_file = written(folder.path(), "127.0.1.1 API.test api-alias.test # a comment\n");
    let resolver = Resolver::new(ResolverOptions { hosts_file, ..options(&server) });
    for (name, expected) in [("api.test", PUBLIC), ("api-alias.test", PUBLIC), ("other.test", OTHER_PUBLIC)] {
        let Host::Name(dns_name) = host(name) else { panic!("{name}") };
        assert_eq!(resolver.resolve(&dns_name).await, Ok(vec![IpAddr::from(expected)]), "{name}");
    }
    assert!(server.asked().iter().all(|asked| asked.name == "other.test."), "{:?}", server.asked());
}

#[tokio::test]
async fn connecting_ends_when_nobody_answers_in_time() {
    let server = NameServer::start(|_, _| Answer::Silence).await;
    let (full, _held) = unresponsive_listener(PUBLIC).await;
    let limit = Duration::from_millis(600);
    let error =
        dialer(&server).with_connect_timeout(limit).connect(&host("127.0.1.1"), full, &[]).await.unwrap_err();
    let DialError::Timeout { host: of, port, limit: waited } = error else { panic!("{error:?}") };
    assert_eq!((of, port, waited), (host("127.0.1.1"), full, limit));
}

#[tokio::test]
async fn an_address_that_does_not_answer_holds_the_next_one_up_for_a_moment_only() {
    let server = NameServer::start(|_, _| addresses(&[PUBLIC, OTHER_PUBLIC])).await;
    let (port, _held) = unresponsive_listener(PUBLIC).await;
    let _other = TcpListener::bind((IpAddr::from(OTHER_PUBLIC), port)).await.unwrap();
    let started = Instant::now();
    let connected = dialer(&server).connect(&host("half.test"), port, &[]).await.unwrap();
    assert_eq!(connected.address, SocketAddr::new(OTHER_PUBLIC.into(), port));
    let took = started.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_millis(900)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn an_address_that_refuses_does_not_hold_up_the_next_one() {
    let server = NameServer::start(|_, _| addresses(&[PUBLIC, OTHER_PUBLIC])).await;
    let (port, [_other]) = listen([OTHER_PUBLIC]).await;
    let started = Instant::now();
    let connected = dialer(&server).connect(&host("half.test"), port, &[]).await.unwrap();
    assert_eq!(connected.address, SocketAddr::new(OTHER_PUBLIC.into(), port));
    assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_sends_at_once_and_notices_a_dead_peer() {
    let server = NameServer::start(|_, _| addresses(&[PUBLIC])).await;
    let (port, [_public]) = listen([PUBLIC]).await;
    let connected = dialer(&server).connect(&host("api.test"), port, &[]).await.unwrap();
    let socket = SockRef::from(&connected.stream);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
}

#[tokio::test]
async fn an_error_says_what_happened_to_what_and_what_to_do() {
    let server = NameServer::start(|_, _| Answer::Code(ResponseCode::NXDomain)).await;
    let error = dialer(&server).connect(&host("tpyo.test"), 443, &[]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "tpyo.test has no address\nhint: check the spelling; the name is looked up as it stands, without search domains"
    );
    let error = dialer(&server).connect(&host("127.0.2.1"), 443, &[]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("127.0.2.1 may not be dialled: 127.0.2.1 is a loopback address\nhint: ")
    );
}

fn written(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("hosts");
    std::fs::write(&path, text).unwrap();
    path
}

/// A port whose queue of connections is full, so that the system leaves the next one without an answer.
async fn unresponsive_listener(on: [u8; 4]) -> (u16, (socket2::Socket, Vec<TcpStream>)) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(on.into(), 0).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        held.push(connected.unwrap());
        assert!(held.len() < 1000, "the queue never fills");
    }
    (address.port(), (socket, held))
}
