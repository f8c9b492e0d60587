//! A name server on loopback, by UDP and TCP on one port, that answers as a test tells it to and remembers what it was asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) family: RecordType,
    pub(crate) transport: Transport,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Addresses with a TTL in seconds; those of the other family are left out.
    Addresses(Vec<IpAddr>, u32),
    /// An alias and its addresses in one answer.
    Alias(&'static str, Vec<IpAddr>),
    Code(ResponseCode),
    /// As if the answer did not fit: the truncation bit and nothing else.
    Truncated,
    Silence,
    Late(Duration, Box<Answer>),
}

type Script = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl NameServer {
    /// `script` gets the question and how often that very question (name, family, transport) came before.
    pub(crate) async fn start(script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let server = Self { address: udp.local_addr().unwrap(), asked: Arc::default() };
        let (script, asked): (Arc<Script>, _) = (Arc::new(script), server.asked.clone());

        let (of_udp, log) = (script.clone(), asked.clone());
        tokio::spawn(async move {
            let mut packet = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut packet).await {
                let (request, udp) = (packet[..length].to_vec(), udp.clone());
                let (script, log) = (of_udp.clone(), log.clone());
                tokio::spawn(async move {
                    if let Some(answer) = reply(&request, Transport::Udp, &*script, &log).await {
                        udp.send_to(&answer, peer).await.unwrap();
                    }
                });
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                tokio::spawn(serve_tcp(stream, script.clone(), asked.clone()));
            }
        });
        server
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn times_asked(&self, family: RecordType) -> usize {
        self.asked().iter().filter(|asked| asked.family == family).count()
    }
}

async fn serve_tcp(mut stream: TcpStream, script: Arc<Script>, log: Arc<Mutex<Vec<Asked>>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut request = vec![0; length.into()];
        stream.read_exact(&mut request).await.unwrap();
        if let Some(answer) = reply(&request, Transport::Tcp, &*script, &log).await {
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

async fn reply(
    request: &[u8],
    transport: Transport,
    script: &Script,
    log: &Mutex<Vec<Asked>>,
) -> Option<Vec<u8>> {
    let request = Message::from_vec(request).unwrap();
    let query = request.queries[0].clone();
    let asked = Asked { name: query.name().to_string(), family: query.query_type(), transport };
    let before = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|earlier| **earlier == asked).count();
        log.push(asked.clone());
        before
    };
    let mut answer = script(&asked, before);
    while let Answer::Late(delay, then) = answer {
        tokio::time::sleep(delay).await;
        answer = *then;
    }
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.queries.push(query.clone());
    match answer {
        Answer::Silence => return None,
        Answer::Code(code) => message.metadata.response_code = code,
        Answer::Truncated => message.metadata.truncation = true,
        Answer::Addresses(addresses, ttl) => message.answers = records(&query, query.name(), &addresses, ttl),
        Answer::Alias(target, addresses) => {
            let target = Name::from_ascii(target).unwrap();
            let alias = RData::CNAME(CNAME(target.clone()));
            message.answers.push(Record::from_rdata(query.name().clone(), 60, alias));
            message.answers.extend(records(&query, &target, &addresses, 60));
        }
        Answer::Late(..) => unreachable!("waited out above"),
    }
    Some(message.to_vec().unwrap())
}

fn records(query: &Query, owner: &Name, addresses: &[IpAddr], ttl: u32) -> Vec<Record> {
    let of_family = addresses.iter().filter(|ip| ip.is_ipv6() == (query.query_type() == RecordType::AAAA));
    of_family.map(|ip| Record::from_rdata(owner.clone(), ttl, RData::from(*ip))).collect()
}
