//! The `kiln` program. See `kiln --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_cli::main()
}
