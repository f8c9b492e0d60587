//! Opaque ids: a prefix that says what it is of, and the row's number in an alphabet of that prefix's own.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use sqids::Sqids;

/// What an id can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdOf {
    /// A person who operates the service.
    User,
    /// A key of such a person.
    ApiKey,
    /// A principal.
    Principal,
    /// A role.
    Role,
    /// A grant.
    Grant,
    /// A proxy.
    Proxy,
    /// A static secret.
    StaticSecret,
    /// A `gcp_auth` secret.
    GcpAuthSecret,
    /// A `gcp_id_token` secret.
    GcpIdTokenSecret,
    /// An `aws_auth` secret.
    AwsAuthSecret,
    /// An `oauth_token` secret.
    OauthTokenSecret,
    /// A `pg_dsn` secret.
    PgDsnSecret,
    /// An `hmac` secret.
    HmacSecret,
    /// A rule of a principal's or role's own.
    EgressRule,
    /// A sandbox.
    Sandbox,
    /// An entry of the change log.
    Change,
}

impl IdOf {
    const ALL: [Self; 16] = [
        Self::User,
        Self::ApiKey,
        Self::Principal,
        Self::Role,
        Self::Grant,
        Self::Proxy,
        Self::StaticSecret,
        Self::GcpAuthSecret,
        Self::GcpIdTokenSecret,
        Self::AwsAuthSecret,
        Self::OauthTokenSecret,
        Self::PgDsnSecret,
        Self::HmacSecret,
        Self::EgressRule,
        Self::Sandbox,
        Self::Change,
    ];

    /// What its ids begin with, before the `_`.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::User => "usr",
            Self::ApiKey => "ak",
            Self::Principal => "prn",
            Self::Role => "role",
            Self::Grant => "grant",
            Self::Proxy => "prx",
            Self::StaticSecret => "ssr",
            Self::GcpAuthSecret => "gas",
            Self::GcpIdTokenSecret => "gid",
            Self::AwsAuthSecret => "aas",
            Self::OauthTokenSecret => "ots",
            Self::PgDsnSecret => "pgs",
            Self::HmacSecret => "hms",
            Self::EgressRule => "rqr",
            Self::Sandbox => "sbx",
            Self::Change => "chg",
        }
    }

    /// The id of the row with this number.
    pub fn id(self, row: i64) -> String {
        let number = u64::try_from(row).expect("row numbers are not negative");
        let encoded = coder(self).encode(&[number]).expect("every number has a form: no word is blocked");
        format!("{}_{encoded}", self.prefix())
    }

    /// Whether a text claims to be such an id, right or wrong.
    pub fn is_claimed_by(self, text: &str) -> bool {
        text.strip_prefix(self.prefix()).is_some_and(|rest| rest.starts_with('_'))
    }

    /// The number of the row that an id names. Several texts decode to the same number; only one of them is its id.
    pub fn row(self, id: &str) -> Option<i64> {
        let encoded = id.strip_prefix(self.prefix())?.strip_prefix('_')?;
        // No number needs more, and a decoder should not be fed whatever stands in a URL.
        if encoded.len() > 24 {
            return None;
        }
        let [number] = coder(self).decode(encoded)[..] else { return None };
        let row = i64::try_from(number).ok()?;
        (self.id(row) == id).then_some(row)
    }
}

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

fn coder(of: IdOf) -> &'static Sqids {
    static CODERS: LazyLock<Vec<Sqids>> = LazyLock::new(|| {
        let coder = |of: &IdOf| {
            let builder = Sqids::builder().alphabet(shuffled(of.prefix())).min_length(8);
            builder
                .blocklist(std::collections::HashSet::new())
                .build()
                .expect("the alphabet has no letter twice")
        };
        IdOf::ALL.iter().map(coder).collect()
    });
    &CODERS[of as usize]
}

/// The alphabet in the order of each letter's hash under the prefix: the same in every version and on every machine.
fn shuffled(prefix: &str) -> Vec<char> {
    let mut letters: Vec<_> = ALPHABET
        .chars()
        .map(|letter| {
            let hash = digest(&SHA256, format!("keyferry id {prefix} {letter}").as_bytes());
            (hash.as_ref().to_vec(), letter)
        })
        .collect();
    letters.sort();
    letters.into_iter().map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_row_of_one_kind_and_has_one_spelling() {
        for of in IdOf::ALL {
            for row in [1, 2, 61, 62, 63, 100_000, i64::MAX] {
                let id = of.id(row);
                assert_eq!(of.row(&id), Some(row), "{id}");
                assert!(id.len() >= of.prefix().len() + 9, "{id}");
                for other in IdOf::ALL.into_iter().filter(|other| *other != of) {
                    assert_eq!(other.row(&id), None);
                    let renamed = format!("{}{}", other.prefix(), &id[of.prefix().len()..]);
                    assert_ne!(other.row(&renamed), Some(row), "{renamed} is as {id}");
                }
            }
        }
    }

    #[test]
    fn t76_what_is_no_id_names_nothing() {
        let id = IdOf::Principal.id(7);
        for text in [
            "",
            "prn",
            "prn_",
            "prn_7",
            "prn_!",
            "prn_é",
            "PRN_aaaaaaaa",
            "prn_%00",
            "prn_' OR 1=1 --",
            &format!("{id} "),
            &format!("{id}a"),
            &id[..id.len() - 1],
            &format!("prn_{}", "a".repeat(10_000)),
        ] {
            assert_eq!(IdOf::Principal.row(text), None, "{text}");
        }
    }

    #[test]
    fn ids_stay_the_same_from_version_to_version() {
        insta::assert_snapshot!(IdOf::ALL.map(|of| of.id(1)).join(" "),);
    }
}
