use keyferry_config::policy::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::frame::Side;
use super::*;
use crate::audit::Flow;

struct Sides {
    client: DuplexStream,
    upstream: DuplexStream,
    relay: Relay<DuplexStream, DuplexStream>,
    flow: Arc<Flow>,
    written: u64,
}

impl Sides {
    fn new(room: usize) -> Self {
        let (client, ours) = duplex(room);
        let (upstream, theirs) = duplex(room);
        let flow = Arc::new(Flow::default());
        let out = Direction::new(Side::Client, None, None);
        let back = Direction::new(Side::Server, None, None);
        let relay = Relay::new(ours, theirs, out, back, Arc::clone(&flow));
        Self { client, upstream, relay, flow, written: 0 }
    }
}

/// A masked and an unmasked `hi`, and close frames.
const FROM_CLIENT: &[u8] = b"\x81\x82\0\0\0\0hi";
const FROM_SERVER: &[u8] = b"\x81\x02hi";
const CLIENT_CLOSES: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
const SERVER_CLOSES: &[u8] = b"\x88\x02\x03\xe8";

#[tokio::test(start_paused = true)]
async fn an_hour_of_silence_ends_it_and_a_message_starts_the_hour_anew() {
    let Sides { mut client, upstream: _upstream, mut relay, mut written, .. } = Sides::new(64);
    let started = Instant::now();
    let talk = async {
        tokio::time::sleep(IDLE - Duration::from_secs(120)).await;
        client.write_all(FROM_CLIENT).await.unwrap();
        std::future::pending::<()>().await;
    };
    let event = tokio::select! {
        event = relay.run(&mut written) => event,
        () = talk => unreachable!("it waits"),
    };
    let Event::Stop(stop) = event else { panic!("{event:?}") };
    assert_eq!((stop.code, stop.refusal.reason), (1001, Reason::UpstreamTimeout));
    let silent = started.elapsed() - (IDLE - Duration::from_secs(120));
    assert!(silent >= IDLE && silent <= IDLE + Duration::from_secs(120), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_answer_a_close_frame_is_given_a_minute() {
    let Sides { mut client, upstream: _upstream, mut relay, mut written, .. } = Sides::new(64);
    client.write_all(CLIENT_CLOSES).await.unwrap();
    let started = Instant::now();
    let event = relay.run(&mut written).await;
    assert!(matches!(event, Event::Stop(_)), "{event:?}");
    assert!(started.elapsed() <= 3 * CLOSING, "{:?}", started.elapsed());
}

#[tokio::test]
async fn both_close_frames_end_it_and_every_byte_is_counted() {
    let Sides { mut client, mut upstream, mut relay, flow, mut written } = Sides::new(8);
    let from_client = [FROM_CLIENT, CLIENT_CLOSES].concat();
    let from_server = [FROM_SERVER, SERVER_CLOSES].concat();
    let talk = async {
        client.write_all(&from_client).await.unwrap();
        let mut heard = vec![0; from_client.len()];
        upstream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, from_client);
        upstream.write_all(&from_server).await.unwrap();
        let mut heard = vec![0; from_server.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, from_server);
    };
    let (event, ()) = tokio::join!(relay.run(&mut written), talk);
    assert!(matches!(event, Event::Over), "{event:?}");
    assert_eq!((flow.bytes(), written), (from_client.len() as u64, from_server.len() as u64));
}

#[tokio::test]
async fn both_sides_are_told_and_the_client_hears_why() {
    let Sides { mut client, mut upstream, relay, mut written, .. } = Sides::new(64);
    relay.close(Some((1008, "policy_changed")), &mut written).await;
    let (mut heard, mut there) = (Vec::new(), Vec::new());
    client.read_to_end(&mut heard).await.unwrap();
    upstream.read_to_end(&mut there).await.unwrap();
    assert_eq!(
        (heard.as_slice(), written),
        (b"\x88\x10\x03\xf0policy_changed".as_slice(), heard.len() as u64)
    );
    assert_eq!((&there[..2], there.len()), (b"\x88\x82".as_slice(), 8));
}
