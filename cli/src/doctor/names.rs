//! A name server that knows where the service is, so that no other one is asked, and no client takes the name for loopback's and goes
//! past the proxy.

use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType, rdata::A};
use tokio::net::UdpSocket;

use crate::failure::Failure;

/// All names below it lead to loopback.
pub(super) const DOMAIN: &str = "doctor.keyferry.test";

/// Where it listens. It ends with the runtime.
pub(super) async fn serve() -> Result<SocketAddr, Failure> {
    let failed = |error: std::io::Error| Failure::fatal(format!("no name server on loopback: {error}"));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let Some(answer) = answer(&buffer[..length]) else { continue };
            // Who is gone by now asks again.
            let _ = socket.send_to(&answer, peer).await;
        }
    });
    Ok(address)
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut reply = Message::from_vec(query).ok()?.into_response();
    reply.metadata.recursion_available = true;
    let question = reply.queries.first()?.clone();
    let name = question.name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let known = name.strip_suffix(DOMAIN).is_some_and(|label| label.ends_with('.'));
    reply.metadata.response_code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
    if known && question.query_type == RecordType::A && question.query_class == DNSClass::IN {
        let address = RData::A(A(Ipv4Addr::LOCALHOST));
        reply.answers.push(Record::from_rdata(question.name, 60, address));
    }
    reply.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    use super::*;

    #[test]
    fn names_of_the_service_lead_to_loopback_and_others_nowhere() {
        let ask = |name: &str, kind| {
            let mut query = Message::query();
            query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
            let reply = Message::from_vec(&answer(&query.to_vec().unwrap()).unwrap()).unwrap();
            let data: Vec<RData> = reply.answers.into_iter().map(|record| record.data).collect();
            (reply.metadata.response_code, data)
        };
        let loopback = RData::A(A(Ipv4Addr::LOCALHOST));
        assert_eq!(ask("CURL.doctor.keyferry.test.", RecordType::A), (ResponseCode::NoError, vec![loopback]));
        assert_eq!(ask("curl.doctor.keyferry.test.", RecordType::AAAA), (ResponseCode::NoError, vec![]));
        for other in ["example.com.", "notdoctor.keyferry.test."] {
            assert_eq!(ask(other, RecordType::A), (ResponseCode::NXDomain, vec![]), "{other}");
        }
        assert_eq!(answer(b"no query"), None);
    }
}
