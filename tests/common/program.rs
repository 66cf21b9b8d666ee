//! The `kiln` program, run in a folder.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// The program with these arguments, in a folder, with a cache of its own for tuned tiles; no test downloads anything.
pub fn kiln(here: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(here).args(arguments);
    command.env("KILN_CACHE", here.join("cache")).env("KILN_OFFLINE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it printed, and what it said.
pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Its status, none where it was killed, and what it said.
pub fn finish(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), texts(&output).1)
}

/// What it printed, and what it said, where it succeeds.
pub fn succeeds(here: &Path, arguments: &[&str]) -> (String, String) {
    let output = kiln(here, arguments).output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{arguments:?}: {err}");
    (out, err)
}
