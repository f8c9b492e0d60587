use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use keyferry_config::document::{self, OnFull, Rotate};
use keyferry_contract::audit::{Action, Event, EventKind, Line, Message};
use keyferry_contract::chain::{Head, LogLine, Options, Place, Report, verify};
use keyferry_dial::OwnListeners;
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::file::LogFile;
use super::sink::Sink;
use super::*;
use crate::drain::Drain;
use crate::telemetry::Telemetry;

fn entry(number: u64) -> Entry {
    let ids = RequestIds::new();
    Entry {
        id: ids.next(),
        began: SystemTime::UNIX_EPOCH,
        duration: Duration::from_millis(number),
        message: Message::Request,
        action: Action::Allow,
        principal: "local".into(),
        sandbox: None,
        generation: 1,
        target: Target::Unknown,
        method: None,
        path: None,
        mode: Mode::Plain,
        sni: None,
        reason: None,
        error: None,
        rule: None,
        warned: false,
        status: Some(200),
        bytes_in: number,
        bytes_out: 0,
        upstream: None,
        remote: Some((Ipv4Addr::LOCALHOST, 1).into()),
        client_protocol: None,
        tunnel: None,
        secrets: SmallVec::new(),
        redacted: 0,
        trace_id: None,
        retried: false,
        foreign: None,
    }
}

/// What a proxy does with a log: opens it, writes records, one by one, and ends.
fn write(path: &Path, settings: &document::Audit, numbers: std::ops::Range<u64>) {
    let (audit, writer) = Writer::start(&AuditTarget::File(path.to_owned())).expect("a log");
    audit.apply(settings);
    for number in numbers {
        audit.reserve().expect("room").send(entry(number));
        wait_until(|| audit.status().queued == 0);
    }
    drop(audit);
    writer.finish(Duration::from_secs(5));
}

fn wait_until(done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "in twenty seconds");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rotated_at(max_bytes: u64, keep: Option<u32>) -> document::Audit {
    let keep = keep.and_then(std::num::NonZeroU32::new);
    let rotate = Some(Rotate { max_bytes: Some(max_bytes), max_age: None, keep });
    document::Audit { rotate, ..document::Audit::default() }
}

/// The folder's files of the log, in the order of their records.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(path.parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    // The live one sorts first.
    files.rotate_left(1);
    files
}

fn lines(files: &[PathBuf]) -> Vec<LogLine> {
    let lines = |path: &PathBuf| {
        let text = fs::read(path).expect("a file of the log");
        let file: Arc<str> = path.to_string_lossy().into();
        let lines = text.split_inclusive(|byte| *byte == b'\n').zip(1..).map(|(bytes, line)| LogLine {
            place: Place { file: Arc::clone(&file), line },
            bytes: bytes.strip_suffix(b"\n").unwrap_or(bytes).to_vec(),
            ended: bytes.ends_with(b"\n"),
        });
        lines.collect::<Vec<_>>()
    };
    files.iter().flat_map(lines).collect()
}

fn verified(files: &[PathBuf]) -> Report {
    verify(lines(files).into_iter().map(Ok), Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The numbers of the requests, and how many are said to be missing.
fn recorded(files: &[PathBuf]) -> (Vec<u64>, u64) {
    let mut found = (Vec::new(), 0);
    for line in lines(files) {
        match Line::parse(&line.bytes) {
            Ok(Line::Request(record)) => found.0.push(record.audit.bytes_in),
            Ok(Line::Event(Event { kind: EventKind::Dropped { dropped }, .. })) => found.1 += dropped.count,
            Ok(Line::Event(Event { kind: EventKind::Chain { .. }, .. })) | Err(_) => {}
        }
    }
    found
}

fn numbers(range: std::ops::Range<u64>) -> (Vec<u64>, u64) {
    (range.collect(), 0)
}

#[test]
fn a_file_that_is_large_enough_gives_way_and_its_chain_goes_on_through_all_of_them_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");

    write(&path, &rotated_at(2000, None), 0..10);
    write(&path, &rotated_at(2000, None), 10..20);

    let files = files(&path);
    assert!(files.len() > 5, "{files:?}");
    assert_eq!(recorded(&files), numbers(0..20));
    assert_eq!(verified(&files).first, 1);
    // Each is called after its last record.
    for file in &files[..files.len() - 1] {
        let last = verified(std::slice::from_ref(file)).head.seq;
        assert_eq!(file, &folder.path().join(format!("audit.jsonl.{last:012}")));
    }
}

#[test]
fn an_old_file_gives_way_when_the_next_record_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    write(&path, &document::Audit::default(), 0..1);
    let rotate = Rotate { max_bytes: None, max_age: Some(Duration::ZERO), keep: None };

    write(&path, &document::Audit { rotate: Some(rotate), ..document::Audit::default() }, 1..3);

    assert_eq!(files(&path).len(), 2, "the first batch of a process says that the chain goes on");
    assert_eq!(recorded(&files(&path)), numbers(0..3));
}

#[test]
fn only_so_many_older_files_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");

    write(&path, &rotated_at(1000, Some(2)), 0..12);

    let files = files(&path);
    assert_eq!(files.len(), 3);
    assert!(verified(&files).first > 1, "the oldest records are gone, and the rest is in order");
}

#[test]
fn a_chain_goes_on_where_only_older_files_are_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    write(&path, &rotated_at(1000, None), 0..5);
    let before = verified(&files(&path)).head;
    fs::rename(&path, folder.path().join(format!("audit.jsonl.{:012}", before.seq))).expect("rename");

    write(&path, &document::Audit::default(), 5..6);

    assert_eq!(recorded(&files(&path)), numbers(0..6));
    assert_eq!(verified(&files(&path)).first, 1);
}

#[test]
fn a_file_that_cannot_give_way_takes_all_records_and_that_is_visible() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let (audit, writer) = Writer::start(&AuditTarget::File(path.clone())).expect("a log");
    audit.apply(&rotated_at(1, None));
    // Whatever number the last record has, its name is taken.
    for seq in 0..20 {
        fs::create_dir(folder.path().join(format!("audit.jsonl.{seq:012}"))).expect("a folder in the way");
    }
    for number in 0..5 {
        audit.reserve().expect("room").send(entry(number));
        wait_until(|| audit.status().queued == 0);
    }

    assert_eq!(audit.trouble(), Some("the audit file cannot be rotated"));
    assert!(audit.status().rotation_failures > 0);
    assert_eq!(recorded(std::slice::from_ref(&path)), numbers(0..5));

    // It heals by itself.
    for seq in 0..20 {
        fs::remove_dir(folder.path().join(format!("audit.jsonl.{seq:012}"))).expect("remove it");
    }
    audit.reserve().expect("room").send(entry(5));
    wait_until(|| audit.trouble().is_none() && audit.status().queued == 0);
    drop(audit);
    writer.finish(Duration::from_secs(5));
    assert_eq!(recorded(&files(&path)), numbers(0..6));
    verified(&files(&path));
}

#[test]
fn a_file_that_was_moved_away_or_truncated_is_followed_by_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let [first, second] = ["audit.jsonl.1", "audit.jsonl.2"].map(|name| folder.path().join(name));
    let (audit, writer) = Writer::start(&AuditTarget::File(path.clone())).expect("a log");
    let send = |number| {
        audit.reserve().expect("room").send(entry(number));
        wait_until(|| audit.status().queued == 0);
        // A record leaves the queue before it is in the file.
        let needle = format!("\"bytes_in\":{number},");
        wait_until(|| fs::read_to_string(&path).is_ok_and(|text| text.contains(&needle)));
    };

    send(0);
    fs::rename(&path, &first).expect("move it away");
    // Nothing to write, but asked to look, as after SIGHUP.
    audit.look();
    wait_until(|| path.exists());
    send(1);
    fs::copy(&path, &second).expect("copy it");
    fs::File::options().write(true).open(&path).expect("open it").set_len(0).expect("truncate it");
    send(2);
    drop(audit);
    writer.finish(Duration::from_secs(5));

    let files = [first, second, path];
    assert_eq!(recorded(&files), numbers(0..3));
    verified(&files);
}

#[test]
fn a_line_that_a_crash_left_incomplete_stands_alone_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    write(&path, &document::Audit::default(), 0..2);
    let whole = fs::read(&path).expect("the log");
    for cut in [10, 1, 0] {
        fs::write(&path, &whole[..whole.len() - cut]).expect("cut it");

        write(&path, &document::Audit::default(), 2..3);

        // Without its line break a record is whole all the same.
        let torn = cut > 1;
        let expected = if torn { (vec![0, 2], 0) } else { numbers(0..3) };
        assert_eq!(recorded(std::slice::from_ref(&path)), expected, "{cut}");
        assert_eq!(verified(std::slice::from_ref(&path)).torn.len(), usize::from(torn), "{cut}");
    }
}

#[test]
fn a_file_has_one_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = AuditTarget::File(folder.path().join("audit.jsonl"));
    let (audit, writer) = Writer::start(&target).expect("a log");

    assert!(matches!(Writer::start(&target), Err(AuditError::Taken(_))));
    // A document that names it again gets the same one.
    assert!(writer.again(&target).is_some());
    assert!(writer.again(&AuditTarget::Stdout).is_none());

    drop(audit);
    writer.finish(Duration::from_secs(5));
    assert!(Writer::start(&target).is_ok());
}

#[test]
fn a_device_is_no_file_and_gets_a_chain_of_its_own() {
    let sink = LogFile::open(Path::new("/dev/null")).expect("a sink");
    assert!(matches!(sink, Sink::Stream(_, head) if head == Head::default()));
}

/// Takes nothing while it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Vec<u8>)>>);

impl io::Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (open, text) = &mut *self.0.lock().expect("no holder panics");
        if !*open {
            return Err(io::ErrorKind::StorageFull.into());
        }
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends ten records through a queue of four places whose sink takes nothing, then opens the sink.
fn squeeze(on_full: OnFull) -> (usize, AuditStatus, Vec<String>) {
    let gate = Gate::default();
    let sink = Sink::Stream(Box::new(gate.clone()), Head::default());
    let (audit, writer) = Writer::start_on(AuditTarget::Stdout, sink, 4).expect("a writer");
    audit.apply(&document::Audit { on_full, ..document::Audit::default() });
    // One is in the writer's hands, four are in the queue.
    audit.reserve().expect("room").send(entry(0));
    wait_until(|| audit.status().queued == 0);
    let pass = |number| audit.reserve().map(|permit| permit.send(entry(number)));
    let passed = (1..10).filter_map(pass).count();
    let status = audit.status();
    gate.0.lock().expect("no holder panics").0 = true;
    wait_until(|| audit.trouble().is_none());
    drop(audit);
    writer.finish(Duration::from_secs(5));
    let text = String::from_utf8(gate.0.lock().expect("no holder panics").1.clone()).expect("text");
    (passed, status, text.lines().map(str::to_owned).collect())
}

#[test]
fn t86_a_full_queue_refuses_and_counts() {
    let (passed, status, lines) = squeeze(OnFull::Deny);

    assert_eq!((passed, status.refused, status.dropped), (4, 5, 0));
    assert_eq!(status.trouble, Some("the audit sink cannot be written"));
    assert_eq!(lines.len(), 6, "where the chain starts, and five records: {lines:#?}");
}

#[test]
fn t86_a_log_that_samples_says_how_many_are_missing() {
    let (passed, status, lines) = squeeze(OnFull::Sample);

    assert_eq!((passed, status.refused, status.dropped), (9, 0, 5));
    assert_eq!(lines.len(), 7, "{lines:#?}");
    let dropped: Vec<u64> = lines
        .iter()
        .filter_map(|line| match Line::parse(line.as_bytes()) {
            Ok(Line::Event(Event { kind: EventKind::Dropped { dropped }, .. })) => Some(dropped.count),
            _ => None,
        })
        .collect();
    assert_eq!(dropped, [5]);
}

/// What holds a request's recorder is its connection's task, so this is how a fault of ours ends.
#[tokio::test]
async fn t89_a_panic_ends_its_connection_alone_and_its_request_is_recorded_as_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let (audit, writer) = Writer::start(&AuditTarget::File(path.clone())).expect("a log");
    let telemetry = Arc::new(Telemetry::start(None, &OwnListeners::default()).expect("nobody to tell"));
    let drain = Drain::default();
    let recorder =
        || Recorder::new(entry(1), audit.reserve().expect("an empty queue"), Arc::clone(&telemetry));

    let (mut failing, mut other) = (recorder(), recorder());
    failing.entry().status = None;
    drain.spawn(async move {
        let _recorder = failing;
        panic!("a mistake of ours");
    });
    drain.spawn(async move {
        tokio::task::yield_now().await;
        other.entry().status = Some(204);
    });
    drain.drain(Duration::from_secs(10)).await;
    drop(audit);
    tokio::task::spawn_blocking(move || writer.finish(Duration::from_secs(10))).await.expect("written");

    let text = fs::read_to_string(path).expect("a log");
    let said: Vec<_> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["msg"] == "request")
        .map(|record| json!([record["audit"]["action"], record["audit"]["status_code"], record["error"]]))
        .collect();
    assert_eq!(
        said,
        [json!(["error", null, "the proxy failed on this request"]), json!(["client_cancel", 204, null])]
    );
}
