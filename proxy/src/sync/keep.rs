//! The last state that control told, sealed on disk: what a proxy starts with while control is away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use keyferry_contract::sync::{Generation, Message, Reach};
use keyferry_seal::{Keys, Place};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::enforce::Stand;
use super::standing::Standing;

/// At most one writing in so long: a busy control plane does not keep the disk busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How old the note of the last confirmation may get.
const NOTE: Duration = Duration::from_secs(15);

/// Where it is kept, and under which keys.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The file; the time of the last confirmation is kept beside it.
    pub path: PathBuf,
    /// What seals it.
    pub keys: Keys,
}

/// One file opens for one proxy.
#[derive(Debug)]
pub(super) struct Keeper {
    kept: Kept,
    /// A hash of the proxy's token: what one proxy was told is not another's.
    proxy: String,
}

/// When control last stood by a state.
#[derive(Serialize, Deserialize)]
struct Note {
    generation: Generation,
    confirmed_at: Timestamp,
}

impl Keeper {
    pub(super) fn new(kept: Kept, token: &SecretString) -> Self {
        let hash = digest(&SHA256, token.expose_secret().as_bytes());
        let proxy = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { kept, proxy }
    }

    /// Puts in force what is kept, with the age that it has. Nothing, if there is nothing, or nothing that opens.
    pub(super) fn restore(&self, standing: &Standing) {
        let Some(lines) = self.read(&self.kept.path, "state") else { return };
        let note = self.read(&self.note_path(), "confirmation");
        let note = note.and_then(|note| serde_json::from_slice::<Note>(&note).ok());
        let now = Timestamp::now();
        let mut enforcer = standing.enforcer();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let taken = serde_json::from_slice::<Message>(line).map_err(|error| error.classify());
            match taken {
                Ok(message) => {
                    if let Err(error) = enforcer.take(message, now) {
                        enforcer.abandon();
                        tracing::warn!(%error, "the kept policy cannot be used");
                        return;
                    }
                }
                Err(kind) => {
                    enforcer.abandon();
                    tracing::warn!(?kind, "the kept policy cannot be read");
                    return;
                }
            }
        }
        // Without a note of that very state nobody knows how old it is; neither does a clock that has been set back.
        let confirmed = note.filter(|note| Some(&note.generation) == enforcer.state.as_ref());
        let age = confirmed.and_then(|note| Duration::try_from(now.duration_since(note.confirmed_at)).ok());
        let age = age.unwrap_or(Duration::MAX).min(enforcer.max_staleness);
        enforcer.restored(age);
        tracing::info!(
            age_seconds = age.as_secs(),
            "the last policy that control told is in force until it answers"
        );
    }

    /// Writes what changes, until the proxy ends.
    pub(super) async fn keep(self: Arc<Self>, standing: Arc<Standing>) {
        let mut applied = standing.applied.subscribe();
        let mut warned = false;
        loop {
            let changed = tokio::select! {
                changed = applied.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = sleep(NOTE) => false,
            };
            let (keeper, standing) = (Arc::clone(&self), Arc::clone(&standing));
            let written = tokio::task::spawn_blocking(move || keeper.write(&standing, changed)).await;
            match written {
                Ok(Ok(())) => warned = false,
                Ok(Err(error)) if !warned => {
                    tracing::warn!(%error, file = %self.kept.path.display(), "the policy cannot be kept for a start without control");
                    warned = true;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    fn write(&self, standing: &Standing, changed: bool) -> io::Result<()> {
        let (generation, age, messages) = {
            let enforcer = standing.enforcer();
            if enforcer.standing == Stand::Revoked {
                drop(enforcer);
                return self.remove();
            }
            let (Some(generation), Some(serves), Some(age)) =
                (enforcer.state.clone(), enforcer.serves, enforcer.age())
            else {
                return Ok(());
            };
            let mut messages = Vec::new();
            if changed {
                messages.push(Message::Begin { reach: Reach::Everything, serves });
                for held in enforcer.policies.values() {
                    messages.push(Message::Policy((*held.of).clone()));
                    let told = held.sandboxes.values().map(|sandbox| (*sandbox.told).clone());
                    messages.extend(told.map(Message::Sandbox));
                }
                messages.push(Message::Commit { generation: generation.clone() });
            }
            (generation, age, messages)
        };
        if changed {
            let lines: Vec<Zeroizing<String>> =
                messages.into_iter().map(|message| message.into_tree().reveal()).collect();
            let mut text = Zeroizing::new(Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum()));
            for line in &lines {
                text.extend_from_slice(line.as_bytes());
                text.push(b'\n');
            }
            self.replace(&self.kept.path, "state", &text)?;
        }
        let confirmed_at = Timestamp::now() - jiff::SignedDuration::try_from(age).unwrap_or_default();
        let note = serde_json::to_vec(&Note { generation, confirmed_at })?;
        self.replace(&self.note_path(), "confirmation", &note)
    }

    fn remove(&self) -> io::Result<()> {
        for path in [&self.kept.path, &self.note_path()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn read(&self, path: &Path, column: &str) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = match fs::read(path) {
            Ok(sealed) => sealed,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, file = %path.display(), "the kept policy cannot be read");
                }
                return None;
            }
        };
        let opened = self.kept.keys.open(&self.place(column), &sealed);
        opened
            .inspect_err(
                |error| tracing::warn!(%error, file = %path.display(), "the kept policy does not open"),
            )
            .ok()
    }

    /// Whole or not at all, and for its owner alone.
    fn replace(&self, path: &Path, column: &str, text: &[u8]) -> io::Result<()> {
        let sealed = self.kept.keys.seal(&self.place(column), text).map_err(io::Error::other)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&sealed)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }

    fn place<'a>(&'a self, column: &'a str) -> Place<'a> {
        Place { table: "proxy_policy", column, row: &self.proxy }
    }

    fn note_path(&self) -> PathBuf {
        let mut name = self.kept.path.as_os_str().to_owned();
        name.push(".confirmed");
        name.into()
    }
}
