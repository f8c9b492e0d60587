//! The binary: everything is in the library, where tests and the generated references reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyferry::main()
}
