//! What MySQL says.

pub mod event;
