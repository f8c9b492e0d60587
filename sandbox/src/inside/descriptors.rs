//! What this process inherited and nobody meant to give it.

use std::fs;
use std::io;

/// Closes everything above `last`.
pub(super) fn close_above(last: i32) -> io::Result<()> {
    // Collected first, because the directory that is read is open itself.
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > last)
        .collect();
    for number in open {
        // The directory's own is closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}
