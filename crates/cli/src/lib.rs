//! The `kiln` program: the only part of Kiln that prints.
//!
//! One module per command under `commands`; `arguments` holds every flag, `output` everything that is
//! printed. The binary is `fn main() -> ExitCode { kiln_cli::main() }`.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod curves;
mod device;
mod error;
#[doc(hidden)]
pub mod hostile;
mod interrupt;
mod memory;
mod output;
mod pictures;
mod product;
mod reconstructions;
mod run_folder;
mod run_record;
mod tuning;

use std::{
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use clap::{Parser, error::ErrorKind};

use crate::{
    arguments::{Arguments, BenchWhat, Command, DataWhat, InspectWhat, usage_line},
    error::{Failure, one_line},
    output::{Ui, complain, duration},
};

/// Exit status of a command that failed.
const FAILED: u8 = 1;

/// Exit status after Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// Exit status of a command line that is wrong.
const WRONG_USAGE: u8 = 2;

/// Runs the program on the process's own arguments.
///
/// Exit status: 0 success; 1 a failure, said in one line on standard error; 2 wrong usage, likewise. A
/// panic, which would be a defect of Kiln, is one line too, and status 1.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        if !kiln_kernel::panics::is_contained() {
            complain(&panic_line(info));
        }
    }));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return show_usage(&error),
    };
    match catch_unwind(AssertUnwindSafe(|| run(&arguments.command))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Ok(Err(failure @ Failure::Interrupted(_))) => {
            complain(&failure.line());
            ExitCode::from(INTERRUPTED)
        }
        Ok(Err(failure)) => {
            complain(&format!("kiln: {}", failure.line()));
            ExitCode::from(FAILED)
        }
        // The hook has said what happened.
        Err(_) => ExitCode::from(FAILED),
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    let ui = Ui::new(command.output());
    let started = Instant::now();
    dispatch(command, &ui)?;
    ui.detail(&format!("took {}", duration(started.elapsed())));
    Ok(())
}

fn dispatch(command: &Command, ui: &Ui) -> Result<(), Failure> {
    match command {
        Command::Devices(_) => commands::devices::run(ui),
        Command::Doctor(args) => commands::doctor::run(args, ui),
        Command::Bench(bench) => match &bench.what {
            BenchWhat::Matmul(args) => commands::bench_matmul::run(args, ui),
            BenchWhat::Conv(args) => commands::bench_conv::run(args, ui),
            BenchWhat::Step(args) => commands::bench_step::run(args, ui),
            BenchWhat::Tune(args) => commands::bench_tune::run(args, ui),
        },
        Command::Plan(args) => commands::plan::run(args, ui),
        Command::Train(args) => commands::train::run(args, ui),
        Command::Eval(args) => commands::eval::run(args, ui),
        Command::Predict(args) => commands::predict::run(args, ui),
        Command::Inspect(inspect) => match &inspect.what {
            InspectWhat::Filters(args) => commands::inspect::filters(args, ui),
            InspectWhat::Activations(args) => commands::inspect::activations(args, ui),
            InspectWhat::Heatmap(args) => commands::inspect::heatmap(args, ui),
            InspectWhat::Maximize(args) => commands::inspect::maximize(args, ui),
        },
        Command::Data(data) => match &data.what {
            DataWhat::Fetch(args) => commands::data_fetch::run(args, ui),
            DataWhat::Show(args) => commands::data_show::run(args, ui),
        },
        Command::Summary(args) => commands::summary::run(args, ui),
        Command::Compare(args) => commands::compare::run(args, ui),
        Command::Report(args) => commands::report::run(args, ui),
        Command::Recipes(args) => commands::recipes::run(args, ui),
        Command::Verify(args) => commands::verify::run(args, ui),
    }
}

/// Help and version where they were asked for; otherwise what is wrong, in one line.
fn show_usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is no reason to complain: nobody reads.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(WRONG_USAGE)
        }
        _ => {
            complain(&format!("kiln: {}", usage_line(error)));
            ExitCode::from(WRONG_USAGE)
        }
    }
}

/// `kiln: internal error: ... (file:line); please report it`
fn panic_line(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown");
    // Only the file's name: where this copy was built is nobody's business.
    let place = info.location().map_or_else(String::new, |location| {
        let file = location.file().rsplit(['/', '\\']).next().unwrap_or_default();
        format!(" ({file}:{})", location.line())
    });
    format!(
        "kiln: internal error: {}{place}; this is a defect in kiln: please report it with the command that you ran",
        one_line(message)
    )
}
