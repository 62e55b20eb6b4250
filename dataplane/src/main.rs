//! The `dataplane` daemon and the commands around it.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
