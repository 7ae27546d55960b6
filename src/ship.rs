//! x
pub(crate) mod buffers;
pub(crate) mod cut;
