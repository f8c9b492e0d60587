use http::HeaderValue;

use super::*;

const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn client() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, HeaderValue::from_static(CLIENT));
    headers.insert(TRACESTATE, HeaderValue::from_static("vendor=value"));
    headers
}

#[test]
fn without_tracing_the_clients_fields_go_and_its_trace_is_known() {
    let mut headers = client();
    let begun = begin(&mut headers, false, None, None, Instant::now());
    assert_eq!(begun.id.unwrap().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert!(begun.trace.is_none() && headers.is_empty(), "{headers:?}");
}

#[test]
fn without_tracing_and_asked_to_the_clients_fields_pass_as_they_are() {
    let mut headers = client();
    begin(&mut headers, true, None, None, Instant::now());
    assert_eq!(headers, client());
}

#[test]
fn a_clients_trace_is_continued_and_stays_here() {
    let mut headers = client();
    let tunnel = continued(&Sampler::default(), None);
    let trace =
        begin(&mut headers, false, Some(&Sampler::default()), Some(&tunnel), Instant::now()).trace.unwrap();
    assert_eq!(trace.context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(trace.parent.unwrap().to_string(), "b7ad6b7169203331");
    assert_eq!(trace.tunnel, Some(tunnel));
    assert!(headers.is_empty());
}

#[test]
fn asked_to_the_upstream_is_told_our_span() {
    let mut headers = client();
    let trace = begin(&mut headers, true, Some(&Sampler::default()), None, Instant::now()).trace.unwrap();
    assert_eq!(headers[TRACEPARENT], trace.context.header());
    assert_ne!(headers[TRACEPARENT], CLIENT);
    assert_eq!(headers[TRACESTATE], "vendor=value");

    headers.insert(TRACEPARENT, HeaderValue::from_static("nonsense"));
    let trace = begin(&mut headers, true, Some(&Sampler::default()), None, Instant::now()).trace.unwrap();
    assert_eq!((trace.parent, headers.contains_key(TRACESTATE)), (None, false));
    assert_eq!(headers[TRACEPARENT], trace.context.header());
}

#[test]
fn a_request_belongs_to_its_tunnel_unless_it_says_otherwise() {
    let tunnel = continued(&Sampler::default(), None);
    let trace = begin(&mut HeaderMap::new(), false, Some(&Sampler::default()), Some(&tunnel), Instant::now());
    let trace = trace.trace.unwrap();
    assert_eq!((trace.context.trace, trace.parent, trace.tunnel), (tunnel.trace, Some(tunnel.span), None));
}

#[test]
fn what_is_not_sampled_has_an_id_and_no_span() {
    let mut headers = client();
    headers.insert(TRACEPARENT, HeaderValue::try_from(CLIENT.replace("-01", "-00")).unwrap());
    let begun = begin(&mut headers, true, Some(&Sampler::default()), None, Instant::now());
    assert!(begun.id.is_some() && begun.trace.is_none());
    assert!(headers[TRACEPARENT].to_str().unwrap().ends_with("-00"));
}
