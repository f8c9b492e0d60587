//! A real `keyferry control` over SQLite, and a place in which commands find it by the environment.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::keyferry::{Place, Run};

pub(crate) const KEY: &str = "iak_5555555555555555555555555555555555555555555555555555555555555555";

pub(crate) struct ControlService {
    place: Place,
    process: Child,
    pub(crate) address: String,
}

impl Drop for ControlService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl ControlService {
    pub(crate) fn start() -> Self {
        let place = Place::new();
        assert_eq!(place.run(&["keyring", "init"]).exit_code, 0);
        let arguments = [
            "control",
            "--keyring",
            "keyring",
            "--database",
            "sqlite:keyferry.db",
            "--listen",
            "127.0.0.1:0",
        ];
        let mut process = place
            .command(&arguments)
            .env("KEYFERRY_BOOTSTRAP_API_KEY", KEY)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says that it is ready").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = line["address"].as_str() {
                break address.to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        let place = place
            .variable("KEYFERRY_CONTROL_URL", &format!("http://{address}"))
            .variable("KEYFERRY_CONTROL_API_KEY", KEY);
        Self { place, process, address }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What a command that goes well says on stdout.
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let run = self.place.run(arguments);
        assert_eq!(run.exit_code, 0, "{arguments:?}: {run:?}");
        run.stdout
    }

    /// The same, read as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.says(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// What a command that goes wrong ends with.
    pub(crate) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let Run { stdout, stderr, exit_code } = self.place.run(arguments);
        assert_eq!(stdout, "", "{arguments:?}");
        (exit_code, stderr)
    }
}
