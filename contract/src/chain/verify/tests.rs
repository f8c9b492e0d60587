use super::*;
use crate::audit::{Dropped, Level};

const COUNT: u64 = 6;

/// An event is a record like any other.
fn event(kind: EventKind) -> Vec<u8> {
    let event = Event { time: "2026-11-22T12:30:00Z".parse().expect("a time"), level: Level::Info, kind };
    serde_json::to_vec(&event).expect("an event is plain data")
}

fn sealed(kind: EventKind, head: &mut Head) -> Vec<u8> {
    let mut line = event(kind);
    head.seal(&mut line, 0);
    line
}

fn numbered(count: u64) -> EventKind {
    EventKind::Dropped { dropped: Dropped { count } }
}

fn chain(event: Beginning, head: Head, torn: Option<&[u8]>) -> EventKind {
    let torn = torn.map(|line| crate::audit::Torn { bytes: line.len() as u64, sha256: Hash::of(line) });
    EventKind::Chain { chain: Chain { event, prev: head.hash, torn } }
}

fn log() -> Vec<Vec<u8>> {
    let mut head = Head::default();
    let mut lines = vec![sealed(chain(Beginning::Start, head, None), &mut head)];
    lines.extend((2..=COUNT).map(|number| sealed(numbered(number), &mut head)));
    lines
}

fn head_of(line: &[u8]) -> Head {
    Sealed::parse(line).expect("a sealed line").head
}

fn check(lines: &[Vec<u8>], options: Options) -> Result<Report, String> {
    check_text(&lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect::<Vec<_>>(), options)
}

fn check_text(text: &[u8], options: Options) -> Result<Report, String> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').zip(1..).map(|(bytes, line)| {
        let place = Place { file: "a".into(), line };
        let (bytes, ended) = bytes.strip_suffix(b"\n").map_or((bytes, false), |bytes| (bytes, true));
        Ok(LogLine { place, bytes: bytes.to_vec(), ended })
    });
    verify(lines, options).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn what_was_written_is_in_order() {
    let head = head_of(&log()[5]);
    let report =
        Report { records: COUNT, first: 1, head, expected: None, torn: Vec::new(), unfinished: None };
    assert_eq!(check(&log(), Options::default()), Ok(report));
    assert_eq!(head.seq, COUNT);
}

#[test]
fn the_hash_is_that_of_the_hash_before_and_of_the_lines_own_bytes() {
    let lines = log();
    let text = str::from_utf8(&lines[1]).expect("a text");
    let (hashed, hash) = text.split_once(",\"hash\":\"").expect("a hash");
    let before = head_of(&lines[0]).hash;

    let expected = Hash::of(&[&before.0, hashed.as_bytes()].concat());

    assert_eq!(hash, format!("{expected}\"}}"));
}

/// One thing done to the log, and what is said of it.
type Tampering = (&'static str, fn(&mut Vec<Vec<u8>>), Result<u64, &'static str>);

#[test]
fn t87_what_was_done_to_a_log_is_named() {
    let cases: &[Tampering] = &[
        (
            "edited",
            |log| log[2] = String::from_utf8_lossy(&log[2]).replace(":3}", ":9}").into_bytes(),
            Err("a:3: this record was changed after it was written"),
        ),
        (
            "its hash edited",
            |log| {
                let at = log[2].len() - 3;
                log[2][at] ^= 1;
            },
            Err("a:3: this record was changed after it was written"),
        ),
        (
            "its number edited",
            |log| log[2] = String::from_utf8_lossy(&log[2]).replace("\"seq\":3", "\"seq\":30").into_bytes(),
            Err("a:3: this record was changed after it was written"),
        ),
        (
            "made unreadable",
            |log| log[2] = b"\x1b[31mgone".to_vec(),
            Err("a:3: this record was changed after it was written"),
        ),
        (
            "edited and its hash made to fit",
            |log| {
                let mut head = head_of(&log[1]);
                log[2] = sealed(numbered(9), &mut head);
            },
            Err("a:4: this record was changed after it was written"),
        ),
        (
            "one removed",
            |log| {
                log.remove(2);
            },
            Err("a:3: record 3 was removed before this line"),
        ),
        (
            "three removed",
            |log| {
                log.drain(1..4);
            },
            Err("a:2: records 2 to 4 were removed before this line"),
        ),
        (
            "the first removed",
            |log| {
                log.remove(0);
            },
            Err("a:1: the log begins in the middle of its chain"),
        ),
        (
            "the first edited",
            |log| log[0] = String::from_utf8_lossy(&log[0]).replace("INFO", "WARN").into_bytes(),
            Err("a:1: this record was changed after it was written"),
        ),
        (
            "neighbours changed places",
            |log| log.swap(2, 3),
            Err("a:3: the records were put in another order: record 3 stands at a:4"),
        ),
        (
            "far ones changed places",
            |log| log.swap(1, 4),
            Err("a:2: the records were put in another order: record 2 stands at a:5"),
        ),
        (
            "a copy put in",
            |log| log.insert(4, log[1].clone()),
            Err("a:5: this line was put in: it is not the record that stood here"),
        ),
        (
            "a forgery put in",
            |log| {
                let mut head = head_of(&log[1]);
                log.insert(2, sealed(numbered(9), &mut head));
            },
            Err("a:4: this line was put in: it is not the record that stood here"),
        ),
        (
            "a blank line put in",
            |log| log.insert(2, Vec::new()),
            Err("a:3: this line was put in: it is not the record that stood here"),
        ),
        (
            "a copy appended",
            |log| log.push(log[1].clone()),
            Err("a:7: this line was put in: it is not the record that stood here"),
        ),
        (
            "rubbish appended",
            |log| log.push(b"rubbish".to_vec()),
            Err("a:7: this record was changed after it was written"),
        ),
        (
            "another chain appended",
            |log| log.extend(self::log()),
            Err("a:7: a new chain starts here, and nothing shows what stood before it"),
        ),
        ("emptied", Vec::clear, Err("there is no record in it")),
        // Without a hash that was noted elsewhere, nothing shows these.
        ("the end cut off", |log| log.truncate(4), Ok(4)),
        (
            "written anew",
            |log| {
                let mut head = Head::default();
                *log = vec![sealed(chain(Beginning::Start, head, None), &mut head)];
            },
            Ok(1),
        ),
    ];
    for (name, tamper, expected) in cases {
        let mut lines = log();
        tamper(&mut lines);
        let found = check(&lines, Options::default()).map(|report| report.head.seq);
        assert_eq!(found, expected.map_err(str::to_owned), "{name}");
    }
}

#[test]
fn t87_a_hash_that_was_noted_shows_what_was_cut_off() {
    let noted = |line: &[u8]| Options { expected: Some(head_of(line).hash), restarts: false };
    let lines = log();

    // The log may have grown since.
    for number in [1, 4, 6] {
        let report = check(&lines, noted(&lines[number - 1]));
        assert_eq!(report.map(|report| report.expected), Ok(Some(number as u64)));
    }
    let cut = check(&lines[..4], noted(&lines[5]));
    assert_eq!(cut, Err(format!("no record has the hash {}", head_of(&lines[5]).hash)));
}

#[test]
fn a_line_that_a_crash_left_is_told_from_tampering() {
    let lines = log();
    let whole = [lines.join(&b'\n'), b"\n".to_vec()].concat();
    let torn = b"{\"time\":\"2026-11";

    // Nobody has written since.
    let report = check_text(&[&whole[..], torn].concat(), Options::default()).expect("in order");
    assert_eq!((report.records, report.unfinished), (COUNT, Some(Place { file: "a".into(), line: 7 })));

    // The next process has said what it found.
    let mut head = head_of(&lines[5]);
    let mut recovered = lines;
    recovered.push(torn.to_vec());
    recovered.push(sealed(chain(Beginning::Continue, head, Some(torn)), &mut head));
    let report = check(&recovered, Options::default()).expect("in order");
    assert_eq!((report.records, report.torn), (COUNT + 1, vec![Place { file: "a".into(), line: 7 }]));

    // What is left of it cannot be changed either.
    recovered[6][9] = b'3';
    assert_eq!(
        check(&recovered, Options::default()),
        Err("a:7: this line was put in: it is not the record that stood here".to_owned())
    );
}

#[test]
fn a_last_line_without_its_line_break_is_a_record_all_the_same() {
    let text = log().join(&b'\n');
    assert_eq!(check_text(&text, Options::default()).map(|report| report.records), Ok(COUNT));
}

#[test]
fn a_later_file_alone_begins_with_the_hash_before_it() {
    let mut head = head_of(&log()[5]);
    let later =
        vec![sealed(chain(Beginning::Continue, head, None), &mut head), sealed(numbered(8), &mut head)];
    let report = check(&later, Options::default()).expect("in order");
    assert_eq!((report.first, report.records), (7, 2));
    assert_eq!(check(&[log(), later].concat(), Options::default()).map(|report| report.records), Ok(8));
}

#[test]
fn chains_that_start_anew_are_taken_where_that_is_asked_for() {
    let options = Options { expected: None, restarts: true };
    let report = check(&[log(), log()].concat(), options).expect("in order");
    assert_eq!((report.records, report.head.seq), (2 * COUNT, COUNT));
}
