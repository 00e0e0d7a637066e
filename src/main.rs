//! The program: everything is in the library but the choice of an allocator.

use std::process::ExitCode;

/// Sealing works in buffers of some 4 MiB on several threads. glibc keeps what
/// it once gave to each thread, so memory grew with the input; this allocator
/// gives large buffers back (benches/memory.sh shows it).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    offsite::cli::main()
}
