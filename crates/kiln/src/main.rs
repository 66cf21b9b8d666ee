//! The `kiln` program. See `kiln --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_cli::main()
}
