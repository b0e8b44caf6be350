//! `rouse`: see the library.

fn main() -> std::process::ExitCode {
    rouse::main()
}
