//! The `binvault` program: everything is in the library.

/// It gives back what is free. The system's own keeps a pool for each of the many threads that wait for disks.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    binvault::cli::main()
}
