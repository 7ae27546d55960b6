//! `[metrics]`: where the agent tells its numbers.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Config;
use crate::error::{Error, Result};

/// `[metrics]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// Address and port; without them nothing is told.
    pub listen: Option<String>,
}

impl Config {
    /// Where metrics are told, if they are.
    ///
    /// # Errors
    /// If it is no address with a port.
    pub fn metrics(&self) -> Result<Option<SocketAddr>> {
        let parsed = self.raw.metrics.listen.as_ref().map(|listen| {
            listen.parse().map_err(|error| {
                Error::config(format!("metrics.listen {listen:?} is no address"))
                    .source(error)
                    .hint("write it as 127.0.0.1:9188 or [::1]:9188")
            })
        });
        parsed.transpose()
    }
}
