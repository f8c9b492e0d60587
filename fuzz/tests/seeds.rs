//! Every target over its seeds, and over what pseudo-random changes make of them: the same ones in each run, without libFuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use keyferry_fuzz::{TARGETS, Target};

/// What has a meaning in some language of ours, and changes the way through a parser.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"0\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.0",
    b"%2e",
    b"%2F",
    b"*",
    b"[!a]",
    b"\\",
    b"..",
    b"- ",
    b"${SET}",
    b"\"",
    b"=",
    b"\n\n",
    b"\x16\x03\x01",
    b"\xff\xff",
    b"deny a /b\n",
    b"\x0100",
    b"\x0103",
    b"\x0106",
    b"\x81\x0flive-value-0123",
    b"\x89\x00",
    b"\x80\x00",
    b"\x88\x02\x03\xe8",
];

#[test]
fn client_hello() {
    run("client_hello", 1500);
}

#[test]
fn config() {
    run("config", 500);
}

#[test]
fn guard() {
    run("guard", 1500);
}

#[test]
fn matcher() {
    run("matcher", 3000);
}

#[test]
fn redactor() {
    run("redactor", 1500);
}

#[test]
fn swap() {
    run("swap", 3000);
}

#[test]
fn websocket() {
    run("websocket", 3000);
}

/// A target that is in one place and not in the others would never run.
#[test]
fn targets_files_and_seeds_have_the_same_names() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!((names("fuzz_targets"), names("seeds")), (targets.clone(), targets));
}

/// Its seeds, and that many changes of them.
fn run(name: &str, mutations: usize) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (path, seed) in &seeds {
        hold(target, seed, &path.display().to_string());
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..mutations {
        let mut input = random.pick(&seeds).1.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &mut random, &seeds);
        }
        hold(target, &input, &format!("mutation {number}"));
    }
}

fn hold(target: &Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let file = std::env::temp_dir().join(format!("keyferry-fuzz-{}", target.name));
        fs::write(&file, input).expect("write the input");
        panic!("{}: {what} breaks a promise; the input is {}", target.name, file.display());
    }
}

fn mutate(input: &mut Vec<u8>, random: &mut Random, seeds: &[(PathBuf, Vec<u8>)]) {
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        2 => {
            let piece = input[at..(at + random.below(64)).min(input.len())].to_vec();
            input.splice(at..at, piece);
        }
        3 => {
            let other = &random.pick(seeds).1;
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        4 => input.insert(at, random.below(256) as u8),
        _ => {
            let token = random.pick(TOKENS).to_vec();
            input.splice(at..at, token);
        }
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(root().join("seeds").join(name)).expect("the seeds' folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a seed"))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// xorshift64 (Marsaglia): the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}
