use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Option<OtlpSettings>, String> {
    let find =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    settings(&find)
}

fn urls(variables: &[(&str, &str)]) -> [Option<String>; 2] {
    let settings = read(variables).unwrap().unwrap_or_default();
    [settings.logs, settings.traces].map(|endpoint| endpoint.map(|endpoint| endpoint.url.to_string()))
}

fn is(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn nothing_is_told_unless_somebody_asks() {
    for variables in [
        &[][..],
        &[("OTEL_SERVICE_NAME", "egress")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "TRUE")],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ],
    ] {
        assert!(read(variables).unwrap().is_none(), "{variables:?}");
    }
}

#[test]
fn the_common_endpoint_is_a_base_and_a_signals_own_stands_as_it_is() {
    assert_eq!(
        urls(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example:4318/base/")]),
        [is("https://c.example:4318/base/v1/logs"), is("https://c.example:4318/base/v1/traces")]
    );
    assert_eq!(
        urls(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c.example/in?tenant=1")]),
        [is("http://c.example/in?tenant=1"), None]
    );
    assert_eq!(urls(&[("OTEL_TRACES_EXPORTER", "otlp")]), [None, is("http://localhost:4318/v1/traces")]);
}

#[test]
fn headers_are_decoded_and_never_printed() {
    let settings = read(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret, x-tenant = a"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=other"),
    ])
    .unwrap()
    .unwrap();
    let headers = |endpoint: &Option<OtlpEndpoint>| endpoint.clone().unwrap().headers;
    assert_eq!(headers(&settings.logs)["authorization"], "Bearer s3cret");
    assert_eq!(headers(&settings.logs)["x-tenant"], "a");
    assert_eq!(headers(&settings.traces)["authorization"], "other");
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn the_resource_has_a_name() {
    let named = |variables: &[(&str, &str)]| {
        let on = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")];
        read(&[variables, &on].concat()).unwrap().unwrap().resource
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(named(&[]), [pair("service.name", "keyferry")]);
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,zone=eu%2C1");
    assert_eq!(named(&[attributes]), [pair("service.name", "a"), pair("zone", "eu,1")]);
    assert_eq!(
        named(&[attributes, ("OTEL_SERVICE_NAME", "b")]),
        [pair("zone", "eu,1"), pair("service.name", "b")]
    );
}

#[test]
fn samplers_go_by_their_names() {
    let sampler = |name: &str, argument: &str| {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ];
        read(&variables).map(|settings| settings.unwrap().sampler)
    };
    assert_eq!(sampler("", ""), Ok(Sampler { follows_parent: true, ratio: 1.0 }));
    assert_eq!(sampler("always_off", ""), Ok(Sampler { follows_parent: false, ratio: 0.0 }));
    let ratio = Sampler { follows_parent: true, ratio: 0.25 };
    assert_eq!(sampler("parentbased_traceidratio", "0.25"), Ok(ratio));
    assert!(sampler("traceidratio", "2").unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG: "));
    assert!(sampler("jaeger_remote", "").unwrap_err().starts_with("OTEL_TRACES_SAMPLER: "));
}

#[test]
fn what_is_wrong_is_named_without_what_it_holds() {
    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
    for (variables, error) in [
        (
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: not an http or https URL",
        ),
        (
            vec![ON, ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")],
            "OTEL_EXPORTER_OTLP_HEADERS: not a list of NAME=VALUE",
        ),
        (
            vec![ON, ("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%0A")],
            "OTEL_EXPORTER_OTLP_HEADERS: not a list of NAME=VALUE",
        ),
        (
            vec![ON, ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")],
            "OTEL_EXPORTER_OTLP_TIMEOUT: not a number of milliseconds",
        ),
        (
            vec![ON, ("OTEL_EXPORTER_OTLP_COMPRESSION", "br")],
            "OTEL_EXPORTER_OTLP_COMPRESSION: only gzip and none are known",
        ),
        (vec![ON, ("OTEL_LOGS_EXPORTER", "console")], "OTEL_LOGS_EXPORTER: only otlp and none are known"),
    ] {
        assert_eq!(read(&variables).unwrap_err(), error);
    }
    let credentials = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:s3cret@c")]).unwrap_err();
    assert!(credentials.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: holds credentials"), "{credentials}");
    assert!(!credentials.contains("s3cret"));
    let grpc = read(&[ON, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
    assert!(grpc.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: this version speaks http/protobuf"), "{grpc}");
}
