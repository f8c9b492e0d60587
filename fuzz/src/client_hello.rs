//! The judgement of a ClientHello does not depend on how it arrives, and its server name is the one that rustls' own acceptor and a
//! naive reader see.

use std::sync::LazyLock;
use std::time::Duration;

use keyferry_config::policy::{Host, Reason};
use keyferry_proxy::fuzzing::{Greeted, greet};
use keyferry_proxy::tls::{Authority, LeafCache, LeafSettings, NewAuthority};
use rustls::server::Acceptor;
use tokio::runtime::Runtime;

use crate::splits::splits;

/// The tunnel's host.
const HOST: &str = "api.example";
/// A fatal alert `unrecognized_name`.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

struct Parts {
    leafs: LeafCache,
    host: Host,
    runtime: Runtime,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    let pem = Authority::generate(&NewAuthority { name: "fuzz".to_owned(), days: 30 }).expect("an authority");
    std::fs::write(&certificate, pem.certificate).expect("write");
    std::fs::write(&key, pem.key.as_bytes()).expect("write");
    let authority = Authority::load(&certificate, &key).expect("an authority of ours");
    let settings = LeafSettings { capacity: 10, lifetime: Duration::from_secs(3600) };
    Parts {
        leafs: LeafCache::new(authority, settings).expect("a cache"),
        host: HOST.parse().expect("a host"),
        runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
    }
});

/// Lets `data` arrive as the start of a handshake.
pub fn run(data: &[u8]) {
    let Parts { leafs, host, runtime } = &*PARTS;
    let verdicts: Vec<Greeted> =
        splits(data).map(|pieces| runtime.block_on(greet(leafs, host, pieces))).collect();
    for other in &verdicts[1..] {
        assert_eq!((other.reason, &other.sni), (verdicts[0].reason, &verdicts[0].sni));
    }
    for Greeted { reason, sni, sent } in &verdicts {
        let names_the_host =
            sni.as_ref().is_none_or(|name| name.parse().is_ok_and(|name: Host| name == *host));
        assert_eq!(*reason == Reason::DestinationMismatch, !names_the_host, "{sni:?}");
        if !names_the_host {
            assert_eq!(sent, UNRECOGNIZED_NAME, "no certificate is shown");
        }
    }
    let (by_rustls, naive) = (by_rustls(data), naive(data));
    if let Some(name) = &verdicts[0].sni {
        assert_eq!(by_rustls.as_ref(), Some(name));
        assert_eq!(naive.map(|name| name.to_ascii_lowercase()), Some(name.to_ascii_lowercase()));
    } else {
        assert_eq!(by_rustls, None);
    }
}

fn by_rustls(mut data: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    loop {
        match acceptor.accept() {
            Ok(Some(accepted)) => return accepted.client_hello().server_name().map(str::to_owned),
            Ok(None) => {}
            Err(_) => return None,
        }
        if !matches!(acceptor.read_tls(&mut data), Ok(read) if read > 0) {
            return None;
        }
    }
}

/// The name in the first extension `server_name` of a ClientHello in as many records as it takes (RFC 8446 section 4.1.2, RFC 6066
/// section 3); none where anything is odd.
fn naive(mut records: &[u8]) -> Option<String> {
    let mut handshake = Vec::new();
    while records.first() == Some(&22) {
        let mut record = Reader(&records[1..]);
        record.take(2)?;
        let length = record.number(2)?;
        handshake.extend_from_slice(record.take(length)?);
        records = record.0;
        if let [1, a, b, c, rest @ ..] = &handshake[..]
            && rest.len() >= usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)
        {
            break;
        }
    }
    let mut message = Reader(&handshake);
    if message.number(1)? != 1 {
        return None;
    }
    let length = message.number(3)?;
    let mut hello = Reader(message.take(length)?);
    hello.take(2 + 32)?;
    for length_of_length in [1, 2, 1] {
        let length = hello.number(length_of_length)?;
        hello.take(length)?;
    }
    let length = hello.number(2)?;
    let mut extensions = Reader(hello.take(length)?);
    loop {
        let kind = extensions.number(2)?;
        let length = extensions.number(2)?;
        let mut content = Reader(extensions.take(length)?);
        if kind == 0 {
            content.number(2)?;
            if content.number(1)? != 0 {
                return None;
            }
            let length = content.number(2)?;
            return String::from_utf8(content.take(length)?.to_vec()).ok();
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }
}
