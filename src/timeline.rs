//! Time lines: which histories an archive holds, and what has to be replayed to reach a moment in one of them. Read only.
//!
//! ```text
//!   archive ─► lines ─► heads ─► lineage ─► place ─► plan ─► playlist
//!              files     ends     how one     where   base,
//!              without   one can  came to     to      files,
//!              a break   follow   a head      stop    proof
//! ```
//!
//! Owns: lines and heads ([`Lines`]), what people may ask for ([`Target`]), where in a head's history that is
//! ([`Place`]), and the choice of base backup and files ([`Plan`]).
//! Does not own: reading bytes (`archive`), sending them (`playback`), servers and folders (`restore`).
//!
//! Invariants: a plan follows one head and holds exactly the transactions of that head's own history, never a union of
//! all that the archive has; a place is always between two transactions; a plan across a gap is never made.

mod keep;
mod line;
mod plan;
mod resolve;
mod route;
mod scan;
mod target;

pub use keep::{KeptHead, Needed};
pub use line::{Head, Line, Lines, Segment};
pub use plan::{Plan, PlanOptions, plan};
pub use resolve::{Place, TransactionNote};
pub use route::{Route, RoutePart, route};
pub use target::{Edge, Target, parse_moment};
