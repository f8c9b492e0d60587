//! A name server for the proxy under test, which remembers what it was asked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType, rdata::A};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A UDP name server on loopback.
pub struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    addresses: HashMap<String, Vec<Ipv4Addr>>,
    queries: Vec<String>,
}

impl NameServer {
    /// Starts one that knows no name yet.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind the name server");
        let address = socket.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(serve(socket, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Teaches it a name.
    pub fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.lock().addresses.insert(name.to_ascii_lowercase(), addresses.to_vec());
    }

    /// The names it was asked for, lower-case and without the trailing dot, each as often as asked.
    pub fn queries(&self) -> Vec<String> {
        self.lock().queries.clone()
    }

    /// Whether anybody asked for a name.
    pub fn was_asked_for(&self, name: &str) -> bool {
        self.queries().iter().any(|asked| asked == name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { return };
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        let answer = {
            let mut state = state.lock().expect("no holder of this lock panics");
            answer(query, &mut state)
        };
        let bytes = answer.to_vec().expect("an encodable answer");
        // A client that is gone by now is no concern of ours.
        let _ = socket.send_to(&bytes, peer).await;
    }
}

fn answer(query: Message, state: &mut State) -> Message {
    let mut reply = query.into_response();
    reply.metadata.recursion_available = true;
    let Some(question) = reply.queries.first().cloned() else { return reply };
    let name = question.name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let known = state.addresses.get(&name);
    reply.metadata.response_code =
        if known.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain };
    if question.query_type == RecordType::A && question.query_class == DNSClass::IN {
        for address in known.into_iter().flatten() {
            reply.answers.push(Record::from_rdata(question.name.clone(), 1, RData::A(A(*address))));
        }
    }
    state.queries.push(name);
    reply
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    use super::*;

    async fn ask(server: &NameServer, name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&query.to_vec().unwrap(), server.address()).await.unwrap();
        let mut buffer = [0; 4096];
        let length = crate::within("an answer", socket.recv(&mut buffer)).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    #[tokio::test]
    async fn known_names_are_answered_and_every_question_is_remembered() {
        let server = NameServer::start().await;
        server.set("api.example", &[Ipv4Addr::LOCALHOST]);

        let known = ask(&server, "API.example.", RecordType::A).await;
        let other_kind = ask(&server, "api.example.", RecordType::AAAA).await;
        let unknown = ask(&server, "nobody.example.", RecordType::A).await;

        assert_eq!(known.answers[0].data, RData::A(A(Ipv4Addr::LOCALHOST)));
        assert_eq!((other_kind.metadata.response_code, other_kind.answers), (ResponseCode::NoError, vec![]));
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(server.queries(), ["api.example", "api.example", "nobody.example"]);
    }
}
