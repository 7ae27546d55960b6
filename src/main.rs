//! The `binvault` program: everything is in the library.

fn main() -> std::process::ExitCode {
    binvault::cli::main()
}
