//! Principals: who a sandbox acts for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attributes::{Attributes, Given, Labels};
use crate::details::Details;
use crate::id::IdOf;
use crate::name::{ForeignId, Namespace};

/// A principal as it is stored.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Its row.
    pub row: i64,
    /// Where it belongs.
    pub namespace: String,
    /// What operators call it.
    pub foreign_id: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// What it stands for.
    pub kind: PrincipalKind,
    /// Who it is in Slack.
    pub identity: SlackIdentity,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// Since when it is so.
    pub updated_at: Timestamp,
}

impl Principal {
    /// Its id.
    pub fn id(&self) -> String {
        IdOf::Principal.id(self.row)
    }
}

/// What a principal stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// Nobody said.
    #[default]
    Unknown,
    /// A person.
    User,
    /// A person with a login.
    ConsoleUser,
    /// A program.
    Service,
    /// A workflow.
    Workflow,
    /// A channel in Slack.
    SlackChannel,
    /// A conversation of two in Slack.
    SlackDm,
    /// A channel in Discord.
    DiscordChannel,
    /// An issue in Linear.
    LinearIssue,
    /// A person in Teams.
    TeamsUser,
    /// A conversation in Teams.
    TeamsConversation,
}

impl PrincipalKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Unknown,
        Self::User,
        Self::ConsoleUser,
        Self::Service,
        Self::Workflow,
        Self::SlackChannel,
        Self::SlackDm,
        Self::DiscordChannel,
        Self::LinearIssue,
        Self::TeamsUser,
        Self::TeamsConversation,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::User => "user",
            Self::ConsoleUser => "console_user",
            Self::Service => "service",
            Self::Workflow => "workflow",
            Self::SlackChannel => "slack_channel",
            Self::SlackDm => "slack_dm",
            Self::DiscordChannel => "discord_channel",
            Self::LinearIssue => "linear_issue",
            Self::TeamsUser => "teams_user",
            Self::TeamsConversation => "teams_conversation",
        }
    }

    /// By its name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Who a principal is in Slack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SlackIdentity {
    /// `U…` or `W…`
    pub slack_user_id: Option<String>,
    /// `C…`, `D…` or `G…`
    pub slack_channel_id: Option<String>,
    /// `T…` or `E…`
    pub slack_team_id: Option<String>,
    /// The address that Slack knows.
    pub slack_email: Option<String>,
}

/// The identity's fields and what their ids begin with.
const IDENTITY: [(&str, &[char]); 4] = [
    ("slack_user_id", &['U', 'W']),
    ("slack_channel_id", &['C', 'D', 'G']),
    ("slack_team_id", &['T', 'E']),
    ("slack_email", &[]),
];

/// What a write of a principal says. What it leaves out stays.
#[derive(Clone, Debug)]
pub struct PrincipalWrite {
    /// Where it belongs; `default`, where it does not say.
    pub namespace: Option<Namespace>,
    /// What operators call it.
    pub foreign_id: Option<ForeignId>,
    /// What people call it.
    pub name: Given<String>,
    /// Its labels.
    pub labels: Given<Labels>,
    /// What it stands for.
    pub kind: Given<PrincipalKind>,
    /// Fields of its Slack identity, in the order of [`IDENTITY`].
    pub identity: [Given<String>; 4],
}

impl PrincipalWrite {
    /// Reads and checks one.
    pub fn read(mut attributes: Attributes) -> Result<Self, Details> {
        let namespace = attributes.namespace();
        let foreign_id = attributes.foreign_id(IdOf::Principal);
        let name = attributes.name();
        let labels = attributes.labels();
        let names = PrincipalKind::ALL.map(PrincipalKind::name).join(", ");
        let kind = attributes.typed("kind", &format!("must be one of {names}"));
        let identity = IDENTITY.map(|(key, first)| {
            let given = attributes.text(key, 255);
            // The same fact in two places would be two facts one day.
            if let (Given::Is(_), Given::Is(labels)) = (&given, &labels)
                && labels.contains_key(key)
            {
                attributes.details.add(key, "is given as an attribute and as a label; give one");
            }
            let alias = match &labels {
                Given::Is(labels) => labels.get(key).and_then(|label| label.as_str()).map(str::to_owned),
                Given::Not | Given::Null => None,
            };
            let given = match (given, alias) {
                (Given::Not, Some(alias)) => Given::Is(alias),
                (given, _) => given,
            };
            if let Given::Is(text) = &given
                && !is_slack_id(text, first)
            {
                attributes.details.add(
                    key,
                    if first.is_empty() {
                        "is no address".to_owned()
                    } else {
                        format!(
                            "is no Slack id; it begins with {} and holds capital letters and digits",
                            or(first)
                        )
                    },
                );
            }
            given
        });
        attributes.finish(|| Self { namespace, foreign_id, name, labels, kind, identity })
    }
}

fn is_slack_id(text: &str, first: &[char]) -> bool {
    if first.is_empty() {
        return text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    }
    text.starts_with(first)
        && text.len() > 1
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn or(letters: &[char]) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(" or ")
}
