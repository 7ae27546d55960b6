//! What MySQL says.

pub mod dump;
mod dump_error;
pub mod event;
