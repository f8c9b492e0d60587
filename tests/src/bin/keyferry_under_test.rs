//! The shipping binary once more, so that the tests always run the one that they were built with.

fn main() -> std::process::ExitCode {
    keyferry::main()
}
