//! `kiln plan RECIPE`

use kiln_device::DeviceOptions;
use kiln_nn::{LargestBatch, MemoryPlan, Recipe};
use serde::Serialize;

use super::{data_fetch::on_first_use, train::optimize};
use crate::{
    Failure,
    arguments::{BatchSize, Plan},
    memory,
    output::{Spinner, Ui},
};

/// The plan, and of which recipe it is.
#[derive(Serialize)]
struct Report {
    recipe: String,
    #[serde(flatten)]
    plan: MemoryPlan,
}

pub(crate) fn run(args: &Plan, ui: &Ui) -> Result<(), Failure> {
    let mut recipe = Recipe::open(&args.recipe)?;
    recipe.data = args.data.spec(&recipe.data);
    if let Some(augment) = &args.augment {
        recipe.augment = Some(augment.clone()).filter(|augment| !augment.is_identity());
    }
    if let Some(part) = args.validation_split {
        recipe.validation_split = part;
    }
    optimize(&mut recipe, args.optimizer)?;
    let device = args.memory.open(&args.device, DeviceOptions::default(), ui)?;
    args.data.check(&recipe.data)?;
    let dir = args.data.dir();
    let mut data = on_first_use(&args.data, &dir, ui, || {
        let _spinner = recipe.is_guessed().then(|| Spinner::new(ui, "reading data"));
        recipe.dataset(&dir)
    })?;
    data.remarks.iter().for_each(|remark| ui.warn(remark));
    recipe.resolve(&data)?;
    if let Some(limit) = args.limit {
        data = data.limit(limit as usize)?;
    }
    match args.batch_size {
        None => {}
        Some(BatchSize::Rows(rows)) => recipe.batch_size = rows as usize,
        Some(BatchSize::Auto) => {
            recipe.batch_size = memory::largest(&recipe, &device, &data, args.check_finite, ui)?;
        }
    }
    let asked = (args.check_finite, args.on_oom.unwrap_or_default());
    let plan = memory::plan(&recipe, &device, &data, asked, LargestBatch::Exact)?;
    ui.result(&format!("{}: {plan}", recipe.name))?;
    ui.json(&Report { recipe: recipe.name.clone(), plan })
}
