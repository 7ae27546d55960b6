//! `check`: preflight.

use clap::Args;

use crate::config::Config;
use crate::error::Result;

/// `binvault check`
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: &CheckArgs) -> Result<()> {
    let _ = (config, args.json);
    Ok(())
}
