//! The `binvault` program.

fn main() {}
