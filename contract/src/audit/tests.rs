use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof![
        Just(String::new()),
        "[a-z0-9./:_-]{1,40}",
        // Everything that JSON escapes, and everything that it does not.
        proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter),
        proptest::collection::vec(0_u8..0x80, 0..40)
            .prop_map(|bytes| bytes.into_iter().map(char::from).collect()),
    ]
    .prop_map(Cow::Owned)
}

fn time() -> impl Strategy<Value = Timestamp> {
    let fraction = prop_oneof![Just(0), Just(125_000_000), Just(1), 0..1_000_000_000_i32];
    // Few seconds, so that one often follows itself.
    let second =
        prop_oneof![Just(-1_i64), Just(0), 1_795_350_600_i64..1_795_350_603, -377705023201_i64..253402207200];
    (second, fraction)
        .prop_map(|(second, fraction)| Timestamp::new(second, fraction).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn duration() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(-0.0),
        any::<u32>().prop_map(|microseconds| f64::from(microseconds) / 1e3),
        any::<u64>().prop_map(|microseconds| (microseconds as f64) / 1e3),
        any::<f64>(),
    ]
}

fn location() -> impl Strategy<Value = Location> {
    prop_oneof![
        Just(Location::Path),
        Just(Location::Body),
        "[a-z][a-z0-9-]{0,20}".prop_map(|name| Location::Header(name.parse().expect("a header's name"))),
        text().prop_map(|key| Location::Query(key.as_ref().into())),
    ]
}

fn trace() -> impl Strategy<Value = TransformTrace<'static>> {
    let secret = || {
        (text(), proptest::collection::vec(location(), 0..3))
            .prop_map(|(secret, locations)| SecretUse { secret, locations: locations.into() })
    };
    let uses = move || proptest::collection::vec(secret(), 0..3);
    let foreign = || proptest::collection::vec(location(), 0..2);
    let unavailable = proptest::collection::vec(text(), 0..3);
    let annotations = (uses(), uses(), unavailable, foreign(), foreign(), any::<Option<u64>>());
    (text(), text(), annotations).prop_map(|(name, action, annotations)| {
        let (swapped, injected, secret_unavailable, foreign_passed, foreign_stripped, redacted) = annotations;
        let annotations = Annotations {
            swapped: swapped.into(),
            injected: injected.into(),
            secret_unavailable,
            foreign_passed,
            foreign_stripped,
            redacted,
        };
        TransformTrace { name, action, annotations }
    })
}

fn request() -> impl Strategy<Value = Audit<'static>> {
    let action = prop_oneof![
        Just(Action::Allow),
        Just(Action::Reject),
        Just(Action::Error),
        Just(Action::ClientCancel)
    ];
    let optional = || proptest::option::of(text());
    let numbers = (any::<[u64; 5]>(), any::<Option<u16>>(), any::<Option<u16>>(), duration(), action);
    let addresses = any::<[Option<SocketAddr>; 2]>();
    let texts = [(); 5].map(|()| text());
    let optionals = [(); 8].map(|()| optional());
    (numbers, addresses, texts, optionals).prop_map(
        |(
            ([process, number, generation, bytes_in, bytes_out], port, status_code, duration_ms, action),
            [upstream_addr, remote_addr],
            [principal, host, method, path, mode],
            [scheme, sni, reason, rule, client_protocol, upstream_protocol, trace_id, sandbox],
        )| Audit {
            request_id: RequestId { process, number },
            principal,
            sandbox,
            generation,
            host,
            port,
            scheme,
            method,
            path,
            sni,
            mode,
            action,
            reason,
            rule,
            status_code,
            duration_ms,
            bytes_in,
            bytes_out,
            upstream_addr,
            remote_addr,
            client_protocol,
            upstream_protocol,
            trace_id,
        },
    )
}

fn record() -> impl Strategy<Value = Record<'static>> {
    let msg = prop_oneof![Just(Message::Request), Just(Message::RequestOpen)];
    let traces = || proptest::collection::vec(trace(), 0..3);
    let optional = || proptest::option::of(text());
    (time(), msg, request(), [optional(), optional(), optional()], any::<bool>(), traces(), traces())
        .prop_map(|(time, msg, audit, [tunnel, rejected_by, error], retried, on_request, on_response)| {
            Record {
                time,
                level: audit.action.level(),
                msg,
                audit,
                tunnel: tunnel.map(|target| Tunnel { target }),
                rejected_by,
                error,
                retried,
                request_transforms: on_request.into(),
                response_transforms: on_response,
            }
        })
}

proptest! {
    #[test]
    fn a_record_is_written_as_serde_writes_it(records in proptest::collection::vec(record(), 1..4)) {
        let mut renderer = Renderer::default();
        for record in &records {
            let mut written = Vec::new();
            renderer.render(record, &mut written);
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(record).unwrap());
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written(record in record()) {
        let mut written = Vec::new();
        Renderer::default().render(&record, &mut written);
        // JSON has no infinities, and serde_json's reader is off by a digit at times.
        prop_assume!(record.audit.duration_ms.abs() < 1e9);
        let mut read = match Line::parse(&written) {
            Ok(Line::Request(read)) => *read,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert!((read.audit.duration_ms - record.audit.duration_ms).abs() < 1e-6);
        read.audit.duration_ms = record.audit.duration_ms;
        prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
    }
}

#[test]
fn what_a_record_looks_like() {
    let record = Record {
        time: "2026-11-22T12:30:00.125Z".parse().unwrap(),
        level: Level::Info,
        msg: Message::Request,
        audit: Audit {
            request_id: RequestId { process: 0x01a2_0354_4cd0_73b7, number: 6 },
            principal: "local".into(),
            sandbox: None,
            generation: 1,
            host: "api.example".into(),
            port: Some(443),
            scheme: Some("https".into()),
            method: "POST".into(),
            path: "/v1/messages".into(),
            sni: None,
            mode: "mitm".into(),
            action: Action::Allow,
            reason: None,
            rule: None,
            status_code: Some(200),
            duration_ms: 12.4,
            bytes_in: 512,
            bytes_out: 2048,
            upstream_addr: Some("203.0.113.7:443".parse().unwrap()),
            remote_addr: Some("[::1]:50812".parse().unwrap()),
            client_protocol: Some("h2".into()),
            upstream_protocol: Some("h1".into()),
            trace_id: None,
        },
        tunnel: Some(Tunnel { target: "api.example:443".into() }),
        rejected_by: None,
        error: None,
        retried: false,
        request_transforms: SmallVec::new(),
        response_transforms: Vec::new(),
    };
    let mut written = Vec::new();
    Renderer::default().render(&record, &mut written);
    assert_eq!(
        String::from_utf8(written).unwrap(),
        r#"{"time":"2026-11-22T12:30:00.125Z","level":"INFO","msg":"request","audit":{"request_id":"01a203544cd073b70000000000000006","principal":"local","generation":1,"host":"api.example","port":443,"scheme":"https","method":"POST","path":"/v1/messages","sni":null,"mode":"mitm","action":"allow","reason":null,"rule":null,"status_code":200,"duration_ms":12.4,"bytes_in":512,"bytes_out":2048,"upstream_addr":"203.0.113.7:443","remote_addr":"[::1]:50812","client_protocol":"h2","upstream_protocol":"h1"},"tunnel":{"target":"api.example:443"}}"#
    );
}
