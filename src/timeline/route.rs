//! A head's history, as far back as it is whole: what replicas are sent that follow it.

use super::line::{Head, Line, Lines};
use super::plan::{PlanOptions, choose_head};
use super::resolve::Place;
use super::target::{Edge, Target};
use crate::archive::{Archive, ReadOptions};
use crate::error::{Error, Kind, Result};
use crate::position::GtidSet;

/// A line's part in a route.
#[derive(Debug, Clone)]
pub struct RoutePart {
    /// The line.
    pub line: Line,
    /// The transactions of it that belong to the head's history; `None`: all.
    pub only: Option<GtidSet>,
}

impl RoutePart {
    /// What was executed before it, of the head's history.
    pub fn before(&self) -> GtidSet {
        match &self.only {
            Some(only) => self.line.before.common_with(only),
            None => self.line.before.clone(),
        }
    }
}

/// A head's history behind its last gap.
#[derive(Debug, Clone)]
pub struct Route {
    /// The head.
    pub head: Head,
    /// Its lines, oldest first; never empty. Nothing is missing between them; the last is the head's own.
    pub parts: Vec<RoutePart>,
    /// Where it shall end, if not with the head; `segment` is an index into `parts`.
    pub place: Option<Place>,
}

/// Finds the history to follow: that of a named head or of the one that `latest` means; with a target, up to there.
///
/// # Errors
/// As [`super::plan()`], where no base backup is concerned.
pub async fn route(
    archive: &Archive,
    read: &ReadOptions,
    head: Option<&str>,
    until: Option<(Target, Option<Edge>)>,
) -> Result<Route> {
    let lines = Lines::read(archive).await?;
    let (head, lineage, place) = match until {
        None => {
            let head = head.map_or_else(|| lines.latest(), |name| lines.named(name))?;
            (head, lines.lineage(head)?, None)
        }
        Some((target, edge)) => {
            let head = head.map(str::to_owned);
            let (base, skip, read) = (None, GtidSet::new(), read.clone());
            let options = PlanOptions { target, edge, head, base, into_server: false, skip, read };
            let (head, lineage, place) = choose_head(archive, &lines, &options).await?;
            (head, lineage, Some(place))
        }
    };
    let whole_from = lineage.iter().rposition(|segment| !segment.missing_after.is_empty());
    let from = whole_from.map_or(0, |gap| gap.saturating_add(1));
    let mut parts = Vec::new();
    for segment in lineage.iter().skip(from) {
        parts.push(RoutePart { line: lines.line(segment.line)?.clone(), only: segment.only.clone() });
    }
    let place = place.map(|place| match place.segment.checked_sub(from) {
        Some(segment) => Ok(Place { segment, ..place }),
        None => Err(Error::new(Kind::Gap, format!("{} lies before a gap in this history", place.position))
            .hint("`binvault status` shows the ranges; `binvault restore` reaches it from a base backup")),
    });
    Ok(Route { head: lines.head(head)?, parts, place: place.transpose()? })
}
