//! What a sandbox sees of the host: a list of what is mounted, and nothing else.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::seen::Seen;
use crate::error::Error;
use crate::layout;

/// One thing that is mounted.
#[derive(Debug)]
pub(super) enum Mount {
    /// The system's, or our own.
    ReadOnly { from: PathBuf, to: PathBuf },
    /// What a sandbox could change, or lies where one could: as it was judged, not what stands there now.
    Judged { seen: Seen, place: PathBuf, writable: bool },
}

impl Mount {
    /// At its own place.
    pub(super) fn read_only(path: &Path) -> Self {
        Self::ReadOnly { from: path.to_owned(), to: path.to_owned() }
    }

    pub(super) fn shown(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self::ReadOnly { from: from.into(), to: to.into() }
    }

    /// What `place` leads to now, there and read-only.
    pub(super) fn judged(place: &Path) -> Result<Self, Error> {
        let seen =
            fs::canonicalize(place).and_then(|real| Seen::at(&real)).map_err(Error::io("open", place))?;
        Ok(Self::Judged { seen, place: place.to_owned(), writable: false })
    }

    pub(super) fn place(&self) -> &Path {
        match self {
            Self::ReadOnly { to, .. } => to,
            Self::Judged { place, .. } => place,
        }
    }
}

/// bubblewrap's arguments.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    words: Vec<OsString>,
    /// What is mounted by descriptor; the first is to be number [`layout::FIRST_MOUNTED`].
    descriptors: Vec<OwnedFd>,
}

impl Arguments {
    /// The namespaces, and the rights that nobody has.
    pub(super) fn isolated(uid: u32, gid: u32) -> Self {
        let mut arguments = Self { words: Vec::with_capacity(256), ..Self::default() };
        for flag in [
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup",
            "--unshare-net",
            "--as-pid-1",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
        ] {
            arguments.push([flag]);
        }
        arguments.push(["--cap-drop", "ALL"]);
        arguments.push(["--hostname", "sandbox"]);
        arguments.push(["--uid", &uid.to_string()]);
        arguments.push(["--gid", &gid.to_string()]);
        arguments
    }

    /// The programs of the host, and its files that name no secret.
    pub(super) fn system(&mut self) -> Result<(), Error> {
        for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => self.push([OsStr::new("--symlink"), target.as_os_str(), path.as_os_str()]),
                Err(_) if path.is_dir() => self.mount(Mount::read_only(&path)),
                Err(_) => {}
            }
        }
        for name in OF_ETC {
            self.mount_if_there(&Path::new("/etc").join(name));
        }
        // Debian keeps what its Java reads of itself in /etc.
        for entry in fs::read_dir("/etc").map_err(Error::io("list", "/etc"))?.flatten() {
            if entry.file_name().as_bytes().starts_with(b"java-") {
                self.mount_if_there(&entry.path());
            }
        }
        Ok(())
    }

    /// A fresh `/proc`, in which nothing of the kernel's own can be written. The user inside of a sandbox that root made is root to
    /// the files of `/proc/sys`, whatever its capabilities: it could name the program that the kernel runs on a crash.
    pub(super) fn processes(&mut self) -> Result<(), Error> {
        self.push(["--proc", "/proc"]);
        for entry in fs::read_dir("/proc").map_err(Error::io("list", "/proc"))?.flatten() {
            let name = entry.file_name();
            if name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
                continue;
            }
            let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
            let writable = found.is_file() && found.permissions().mode() & 0o222 != 0;
            if found.is_dir() || writable {
                self.mount(Mount::read_only(&entry.path()));
            }
        }
        Ok(())
    }

    /// `/dev` without devices of the machine, and private directories that hold only so much.
    pub(super) fn private(&mut self, tmp: u64, home: u64) {
        self.push(["--dev", "/dev"]);
        self.limited(tmp, "/dev/shm");
        self.limited(tmp, "/tmp");
        self.limited(tmp, "/var/tmp");
        self.limited(home, layout::HOME);
    }

    fn limited(&mut self, size: u64, place: &str) {
        self.push(["--perms", "0700", "--size", &size.to_string(), "--tmpfs", place]);
    }

    pub(super) fn mount(&mut self, mount: Mount) {
        match mount {
            Mount::ReadOnly { from, to } => {
                self.push([OsStr::new("--ro-bind"), from.as_os_str(), to.as_os_str()]);
            }
            Mount::Judged { seen, place, writable } => {
                let how = if writable { "--bind-fd" } else { "--ro-bind-fd" };
                let number = layout::FIRST_MOUNTED.unsigned_abs() as usize + self.descriptors.len();
                self.push([OsStr::new(how), OsStr::new(&number.to_string()), place.as_os_str()]);
                self.descriptors.push(seen.into_file());
            }
        }
    }

    fn mount_if_there(&mut self, path: &Path) {
        if path.exists() {
            self.mount(Mount::read_only(path));
        }
    }

    /// Nothing can be put where nothing was mounted; it would count against no limit.
    pub(super) fn closed(&mut self) {
        self.push(["--remount-ro", "/dev"]);
        self.push(["--remount-ro", "/"]);
        self.push(["--chdir", "/"]);
    }

    pub(super) fn push<const N: usize, T: AsRef<OsStr>>(&mut self, words: [T; N]) {
        self.words.extend(words.iter().map(|word| word.as_ref().to_owned()));
    }

    pub(super) fn into_parts(self) -> (Vec<OsString>, Vec<OwnedFd>) {
        (self.words, self.descriptors)
    }
}

/// How programs are loaded and named, how time and text are written. Accounts, names of hosts, and certificates are our own.
const OF_ETC: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vimrc",
];
