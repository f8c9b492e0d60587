//! Which principal a conversation acts as. Its name is made of ids alone, so that a channel that is renamed stays itself.

use serde_json::{Map, Value, json};

use super::{managed_labels, slug};

/// A principal as it is made where there is none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) foreign_id: String,
    name: String,
    kind: Option<&'static str>,
    labels: Vec<(&'static str, String)>,
}

impl Derived {
    /// From what an operator wrote: a thread's key has a colon, a name has none.
    pub(crate) fn of(principal: &str, slack_user: Option<&str>) -> Self {
        if principal.contains(':') {
            Self::of_thread(principal, slack_user)
        } else {
            Self::plain(principal, principal)
        }
    }

    /// The body of its first upsert.
    pub(crate) fn data(&self, namespace: &str) -> Value {
        let mut labels: Map<String, Value> = managed_labels();
        labels.extend(self.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        let mut data = json!({ "namespace": namespace, "name": self.name, "labels": labels });
        if let Some(kind) = self.kind {
            data["kind"] = json!(kind);
        }
        data
    }

    fn plain(foreign_id: &str, name: &str) -> Self {
        Self { foreign_id: foreign_id.to_owned(), name: name.to_owned(), kind: None, labels: Vec::new() }
    }

    fn of_thread(key: &str, slack_user: Option<&str>) -> Self {
        let parts: Vec<&str> = key.split(':').map(str::trim).filter(|part| !part.is_empty()).collect();
        let some = |kind: &'static str, foreign_id: String, name: String| Self {
            kind: Some(kind),
            ..Self::plain(&foreign_id, &name)
        };
        match parts.as_slice() {
            ["discord", guild, channel, ..] => some(
                "discord_channel",
                format!("discord-channel-{}-{}", slug(guild), slug(channel)),
                format!("Discord Channel {channel} (server {guild})"),
            ),
            ["linear", issue, ..] => {
                some("linear_issue", format!("linear-issue-{}", slug(issue)), format!("Linear Issue {issue}"))
            }
            ["teams", "user", user, ..] => {
                some("teams_user", format!("teams-user-{}", slug(user)), format!("Teams User {user}"))
            }
            ["teams", "conversation", id, ..] | ["teams", id, ..] => some(
                "teams_conversation",
                format!("teams-conversation-{}", slug(id)),
                format!("Teams Conversation {id}"),
            ),
            ["telegram", "user", id, ..] => {
                Self::plain(&format!("telegram-user-{}", slug(id)), &format!("Telegram User {id}"))
            }
            ["telegram", "chat", id, ..] => {
                Self::plain(&format!("telegram-chat-{}", slug(id)), &format!("Telegram Chat {id}"))
            }
            // Telegram gives groups negative ids; a chat of two has the user's own.
            ["telegram", id, ..] => {
                let (what, title) = if id.starts_with('-') { ("chat", "Chat") } else { ("user", "User") };
                Self::plain(&format!("telegram-{what}-{}", slug(id)), &format!("Telegram {title} {id}"))
            }
            ["workflow", name, ..] => {
                some("workflow", format!("workflow-{}", slug(name)), format!("Workflow {name}"))
            }
            [_, rest @ ..] => Self::of_slack(rest, slack_user)
                .unwrap_or_else(|| Self::plain(&format!("thread-{}", slug(key)), key)),
            [] => Self::plain("thread-x", key),
        }
    }

    /// Slack's ids say what they are by their first letter, wherever they stand; a time has none, and a small letter is no id.
    fn of_slack(parts: &[&str], user: Option<&str>) -> Option<Self> {
        let first = |letters: &[char]| parts.iter().copied().find(|part| part.starts_with(letters));
        let team = first(&['T']);
        let conversation = first(&['C', 'D', 'G'])?;
        let scope = team.map(|team| format!("{}-", slug(team))).unwrap_or_default();
        let of_team = team.map(|team| format!(" (team {team})")).unwrap_or_default();
        let mut labels: Vec<_> = team.map(|team| ("slack_team_id", team.to_owned())).into_iter().collect();
        let user = user.map(str::trim).filter(|user| !user.is_empty() && conversation.starts_with('D'));
        Some(match user {
            Some(user) => {
                labels.push(("slack_user_id", user.to_owned()));
                Self {
                    foreign_id: format!("slack-user-{scope}{}", slug(user)),
                    name: format!("Slack User {user}{of_team}"),
                    kind: Some("slack_dm"),
                    labels,
                }
            }
            None => {
                labels.push(("slack_channel_id", conversation.to_owned()));
                Self {
                    foreign_id: format!("slack-channel-{scope}{}", slug(conversation)),
                    name: format!("Slack Channel {conversation}{of_team}"),
                    kind: Some("slack_channel"),
                    labels,
                }
            }
        })
    }
}
