//! What bubblewrap and the init say when they cannot, and what it means.

use crate::error::Error;

/// An error that names what the system lacks.
pub(super) fn understand(said: &str) -> Error {
    let said = said.trim();
    let known = KNOWN.iter().find(|known| known.words.iter().any(|words| said.contains(words)));
    match known {
        Some(known) => Error::Unsupported { feature: known.feature, said: said.to_owned(), hint: known.hint },
        None if said.is_empty() => Error::Setup { said: "it ended without a word".to_owned() },
        None => Error::Setup { said: said.to_owned() },
    }
}

struct Known {
    words: &'static [&'static str],
    feature: &'static str,
    hint: &'static str,
}

/// The more particular before the more general.
const KNOWN: &[Known] = &[
    Known {
        words: &["loopback: ", "NETNS", "listen on loopback"],
        feature: "a network namespace with a loopback of its own",
        hint: "where an AppArmor profile restricts user namespaces, allow bwrap to use them",
    },
    Known {
        words: &["Can't mount proc", "/newroot/proc"],
        feature: "a fresh /proc",
        hint: "in a container, run it with an unmasked /proc (--security-opt systempaths=unconfined)",
    },
    Known {
        words: &["uid map", "gid map", "setgroups"],
        feature: "a user namespace with a user of its own",
        hint: "where an AppArmor profile restricts user namespaces, allow bwrap to use them",
    },
    Known {
        words: &["new namespace", "cgroup namespace", "user namespace", "userns", "unprivileged_userns"],
        feature: "namespaces",
        hint: "allow user namespaces (kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0); in a container or \
               in another sandbox they may be forbidden",
    },
    Known {
        words: &["cannot filter system calls"],
        feature: "a seccomp filter",
        hint: "use a kernel with CONFIG_SECCOMP_FILTER",
    },
    Known {
        words: &["Unknown option"],
        feature: "an option of bubblewrap",
        hint: "use bubblewrap 0.10 or newer, or an older one with --bind-fd, as Debian 12 has",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        for (said, feature) in [
            (
                "bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged user namespaces.",
                "namespaces",
            ),
            ("bwrap: Creating new namespace failed: Invalid argument", "namespaces"),
            ("bwrap: setting up uid map: Permission denied", "a user namespace with a user of its own"),
            (
                "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
                "a network namespace with a loopback of its own",
            ),
            ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "a fresh /proc"),
            ("error: cannot filter system calls: Seccomp(22)", "a seccomp filter"),
            ("bwrap: Unknown option --bind-fd", "an option of bubblewrap"),
        ] {
            match understand(said) {
                Error::Unsupported { feature: named, said: quoted, .. } => {
                    assert_eq!((named, quoted.as_str()), (feature, said));
                }
                other => panic!("{said}: {other}"),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_quoted() {
        assert_eq!(
            understand("bwrap: Can't find source path /x\n").to_string(),
            "the sandbox could not be set up: bwrap: Can't find source path /x"
        );
        assert_eq!(understand("").to_string(), "the sandbox could not be set up: it ended without a word");
    }
}
