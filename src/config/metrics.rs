//! `[metrics]`: where the agent tells its numbers.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::Config;
use super::values::{Span, de};
use crate::error::{Error, Result};

/// `[metrics]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// Address and port; without them nothing is told.
    pub listen: Option<String>,
    /// How often the archive is looked at.
    pub survey_interval: Span,
    /// Of a GiB and month.
    #[serde(deserialize_with = "de::number")]
    pub storage_price: f64,
    /// Of a thousand PUTs.
    #[serde(deserialize_with = "de::number")]
    pub put_price: f64,
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { listen: None, survey_interval: Span::seconds(600), storage_price: 0.023, put_price: 0.005 }
    }
}

/// Where and what is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObserveOptions {
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// How often the archive is looked at.
    pub survey_interval: Duration,
    /// Of a GiB and month; 0 if nothing shall be told of costs.
    pub storage_price: f64,
    /// Of a thousand PUTs.
    pub put_price: f64,
}

impl Default for ObserveOptions {
    fn default() -> Self {
        let survey_interval = Duration::from_secs(600);
        Self { listen: None, survey_interval, storage_price: 0.0, put_price: 0.0 }
    }
}

impl Config {
    /// What is told, and where.
    ///
    /// # Errors
    /// If the address is none with a port, or a number is out of range.
    pub fn observe(&self) -> Result<ObserveOptions> {
        let raw = &self.raw.metrics;
        let parsed = raw.listen.as_ref().map(|listen| {
            listen.parse().map_err(|error| {
                Error::config(format!("metrics.listen {listen:?} is no address"))
                    .source(error)
                    .hint("write it as 127.0.0.1:9188 or [::1]:9188")
            })
        });
        for (name, price) in [("storage_price", raw.storage_price), ("put_price", raw.put_price)] {
            if !(price.is_finite() && price >= 0.0) {
                return Err(Error::config(format!("metrics.{name} {price} is no price")));
            }
        }
        Ok(ObserveOptions {
            listen: parsed.transpose()?,
            survey_interval: raw.survey_interval.at_least(Duration::from_secs(1), "metrics.survey_interval")?,
            storage_price: raw.storage_price,
            put_price: raw.put_price,
        })
    }
}
