//! `keyferry policy`.

mod replay;
mod test;

use crate::failure::Failure;

/// Try a policy, without sending anything
#[derive(clap::Subcommand)]
pub(crate) enum Policy {
    Test(test::Test),
    Replay(replay::Replay),
}

impl Policy {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Test(test) => test.run(),
            Self::Replay(replay) => replay.run(),
        }
    }
}
