//! Optimizers over several parameters: groups, frozen parameters, clipping and trust ratios, against their meaning in
//! plain `f64`; schedules in a trainer; and all of them in recipes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use common::{
    backends::{self, Target},
    golden::compare,
    optimizers::Arenas,
};
use kiln::{
    data::{DataDir, Dataset, Gate},
    device::Device,
    nn::{
        Activation::Relu, Adam, Clip, Dense, Fit, Lamb, Loss, Optimizer, ParameterGroup, Plateau, Recipe,
        Rule, Schedule, Scheduled, Sequential, Sgd, Trainer, Unit, Update,
    },
};
use kiln_graph::Segments;
use kiln_kernel::{Shape, random::Stream};

const STEPS: usize = 4;

/// Parameters of one block and of several, of one axis and of more.
fn parameters() -> Vec<(String, Shape)> {
    [
        ("fc1.weight", Shape::from([7, 13])),
        ("fc1.bias", Shape::from([7])),
        ("fc2.weight", Shape::from([65, 3])),
        ("norm.weight", Shape::from([130])),
        ("norm.running_mean", Shape::from([130])),
    ]
    .map(|(name, shape)| (name.to_string(), shape))
    .into()
}

fn trainable(name: &str) -> bool {
    name != "norm.running_mean"
}

/// Numbers in [-1, 1) that `f32` holds.
fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let stream = Stream { seed, stream: 3, step: 0 };
    (0..len as u32).map(|i| f64::from(stream.uniform(i)) * 2.0 - 1.0).collect()
}

/// Some steps on a device and in plain `f64`; the worst error in units of what is allowed.
fn check(target: &Target, optimizer: &Optimizer) -> f64 {
    let parameters = parameters();
    let segments = Segments::new(&parameters);
    let arenas = Arenas::new(target, optimizer, &segments, &trainable, STEPS);
    let count = optimizer.moments().len();
    let len = |shape: &Shape| shape.elements();
    let mut weights: Vec<Vec<f64>> =
        parameters.iter().zip(1..).map(|((_, shape), seed)| numbers(seed, len(shape))).collect();
    let first = weights.clone();
    let mut moments: Vec<Vec<Vec<f64>>> =
        parameters.iter().map(|(_, shape)| vec![vec![0.0; len(shape)]; count]).collect();
    for ((name, _), w) in parameters.iter().zip(&weights) {
        arenas.set_weights(name, w);
    }
    let learns = |name: &str, rank: usize| trainable(name) && optimizer.settings_of(name, rank).0 != 0.0;
    for step in 0..STEPS {
        let mut gradients: Vec<Vec<f64>> = Vec::new();
        for ((name, shape), seed) in parameters.iter().zip(100 * (step as u64 + 1)..) {
            let gradient = numbers(seed, len(shape));
            arenas.set_gradient(name, &gradient);
            gradients.push(gradient);
        }
        arenas.step();
        if let Some(clip) = optimizer.clip {
            // norms are of what learns
            let learning: Vec<usize> =
                (0..parameters.len()).filter(|&p| learns(&parameters[p].0, parameters[p].1.rank())).collect();
            let mut clipped: Vec<Vec<f64>> = learning.iter().map(|&p| gradients[p].clone()).collect();
            clip.apply_f64(&mut clipped);
            for (p, gradient) in learning.into_iter().zip(clipped) {
                gradients[p] = gradient;
            }
        }
        let learning_rate = optimizer.learning_rate();
        for (p, (name, shape)) in parameters.iter().enumerate().filter(|(_, (name, _))| trainable(name)) {
            let at = Update { name, rank: shape.rank(), step: step as u64, learning_rate };
            optimizer.update_f64(at, &mut weights[p], &gradients[p], &mut moments[p]);
        }
    }
    let mut worst = 0.0f64;
    for (p, (name, shape)) in parameters.iter().enumerate() {
        let got = arenas.weights(name);
        let what = format!("{} {:?}: {name} on {}", optimizer.name(), optimizer.clip, target.name);
        if learns(name, shape.rank()) {
            assert_ne!(got, first[p], "{what} did not move");
            worst = worst.max(compare(&what, &got, &weights[p], target.double));
        } else {
            let bits = |values: &[f64]| -> Vec<u64> { values.iter().map(|v| v.to_bits()).collect() };
            assert_eq!(bits(&got), bits(&first[p]), "{what} moved");
        }
    }
    worst
}

/// `fc1` slowly, `fc2` not at all, and no decay on what has one axis.
fn grouped(optimizer: Optimizer) -> Optimizer {
    optimizer
        .with_group(ParameterGroup { lr_factor: Some(0.25), ..ParameterGroup::new("fc1.w*") })
        .with_group(ParameterGroup { frozen: true, ..ParameterGroup::new("fc2.*") })
        .no_decay_on_bias_and_norm()
}

/// With a weight decay that no rule is without.
fn decayed(name: &str) -> Optimizer {
    let mut optimizer = Optimizer::named(name).unwrap();
    match &mut optimizer.rule {
        Rule::Sgd(o) => (o.weight_decay, o.momentum) = (0.125, 0.5),
        Rule::Rmsprop(o) => o.weight_decay = 0.125,
        Rule::Adagrad(o) => o.weight_decay = 0.125,
        Rule::Adadelta(o) => (o.weight_decay, o.learning_rate) = (0.125, 1.0),
        Rule::Adam(o) => o.weight_decay = 0.125,
        Rule::Adamax(o) => o.weight_decay = 0.125,
        Rule::Nadam(o) => o.weight_decay = 0.125,
        Rule::Lion(o) => o.weight_decay = 0.125,
        Rule::Lamb(o) => o.weight_decay = 0.125,
    }
    optimizer.check().unwrap();
    optimizer
}

#[test]
fn every_rule_keeps_to_its_meaning_with_groups() {
    for target in backends::all() {
        let mut worst = 0.0f64;
        for name in Optimizer::NAMES {
            assert_eq!(Optimizer::named(name).unwrap().name(), name);
            worst = worst.max(check(&target, &decayed(name)));
            worst = worst.max(check(&target, &grouped(decayed(name))));
        }
        println!("worst on {}: {worst:.3} of what is allowed", target.name);
    }
}

#[test]
fn clipping_keeps_to_its_meaning() {
    for target in backends::all() {
        // one limit that all pass, and one that none does
        for limit in [0.5, 1e3] {
            for clip in [Clip::Value(limit), Clip::Norm(limit), Clip::GlobalNorm(limit)] {
                check(&target, &decayed("sgd").with_clip(clip));
                check(&target, &grouped(decayed("adamw")).with_clip(clip));
                check(&target, &grouped(Lamb::new(0.01).into()).with_clip(clip));
            }
        }
    }
}

/// What learns not is untouched whatever its gradient is.
#[test]
fn frozen_parameters_outlast_gradients_that_are_no_numbers() {
    for target in backends::all() {
        let parameters = parameters();
        let segments = Segments::new(&parameters);
        for name in Optimizer::NAMES {
            let optimizer = grouped(Optimizer::named(name).unwrap());
            let arenas = Arenas::new(&target, &optimizer, &segments, &trainable, 1);
            for (name, shape) in &parameters {
                arenas.set_weights(name, &vec![-0.0; shape.elements()]);
                arenas.set_gradient(name, &vec![f64::NAN; shape.elements()]);
            }
            arenas.step();
            for frozen in ["fc2.weight", "norm.running_mean"] {
                let bits: Vec<u64> = arenas.weights(frozen).iter().map(|w| w.to_bits()).collect();
                assert!(
                    bits.iter().all(|&b| b == (-0.0f64).to_bits()),
                    "{name}: {frozen} on {}",
                    target.name
                );
            }
        }
    }
}

#[test]
fn the_first_group_that_matches_holds() {
    let segments = Segments::new(&parameters());
    let optimizer = grouped(Adam::decoupled(1e-3).into());
    assert_eq!(optimizer.settings_of("fc1.weight", 2), (0.25, 0.01));
    assert_eq!(optimizer.settings_of("fc1.bias", 1), (1.0, 0.0));
    assert_eq!(optimizer.settings_of("other", 2), (1.0, 0.01));
    let table = optimizer.group_settings(&segments, &trainable);
    // two blocks, one, four, three and three
    let rows = [
        vec![[0.25, 0.01]; 2],
        vec![[1.0, 0.0]],
        vec![[0.0, 0.01]; 4],
        vec![[1.0, 0.0]; 3],
        vec![[0.0; 2]; 3],
    ];
    assert_eq!(table, rows.concat().concat());
    optimizer.check_groups(&segments).unwrap();
    let message = optimizer.with_group(ParameterGroup::new("fc9.*")).check_groups(&segments).unwrap_err();
    assert!(
        message.to_string().contains("\"fc9.*\" matches no parameter; there are fc1.weight"),
        "{message}"
    );
}

fn xor_trainer(optimizer: Optimizer) -> Trainer {
    let model = Sequential::new([2]).add(Dense::new(8).activation(Relu)).add(Dense::new(1));
    Trainer::new(&Device::cpu(), model, optimizer, Loss::MeanSquaredError).unwrap()
}

fn weights(trainer: &Trainer) -> Vec<Vec<f32>> {
    let names: Vec<String> = trainer.store().segments().list().iter().map(|s| s.name.clone()).collect();
    names.iter().map(|name| trainer.parameter(name).unwrap()).collect()
}

fn train(trainer: &mut Trainer, epochs: usize) -> Vec<Vec<f32>> {
    let data = Dataset::gate(Gate::Xor).unwrap();
    trainer.fit(&data.train, Fit { epochs, batch_size: 2, ..Fit::default() }).unwrap();
    weights(trainer)
}

#[test]
fn a_trainer_follows_its_schedule() {
    let optimizer = || Optimizer::from(Sgd::new(0.1));
    let down = Schedule::Polynomial { total: 1, power: 1.0, end: 0.0 };
    // one epoch of two steps, or one step, then none
    let mut by_epoch = xor_trainer(optimizer()).with_schedule(down.clone().per_epoch()).unwrap();
    let mut plain = xor_trainer(optimizer());
    assert_eq!(train(&mut by_epoch, 1), train(&mut plain, 1));
    let after_one = weights(&by_epoch);
    assert_eq!(train(&mut by_epoch, 3), after_one);
    let mut by_step = xor_trainer(optimizer()).with_schedule(down).unwrap();
    assert_ne!(train(&mut by_step, 1), after_one);
    let after_one = weights(&by_step);
    assert_eq!(train(&mut by_step, 1), after_one);
    // a reset begins anew
    by_step.reset(42).unwrap();
    assert_eq!(train(&mut by_step, 1), after_one);
}

#[test]
fn a_trainer_waits_for_a_plateau() {
    let plateau = |factor| Schedule::ReduceOnPlateau {
        factor,
        patience: 1,
        min_delta: 1e3,
        cooldown: 0,
        min_lr: 0.0,
        mode: Default::default(),
    };
    let optimizer = || Optimizer::from(Sgd::new(0.01));
    // no change is large enough: the first epoch is the best, each later one a plateau
    let mut waits = xor_trainer(optimizer()).with_schedule(plateau(1e-30)).unwrap();
    let mut plain = xor_trainer(optimizer());
    assert_eq!(train(&mut waits, 2), train(&mut plain, 2));
    let after_two = weights(&waits);
    assert_eq!(train(&mut waits, 1), after_two);
    assert_ne!(train(&mut plain, 1), after_two);
}

/// A schedule whose length is left open ends with the fit, and what follows a warm-up with what is left of it.
#[test]
fn schedules_last_as_long_as_the_fit() {
    let cosine = Schedule::cosine().over(10);
    assert_eq!(cosine, Schedule::Cosine { total: 10, minimum: 0.0 });
    let fixed = Schedule::Cosine { total: 7, minimum: 0.0 };
    assert_eq!(fixed.over(10), fixed);
    let warm = Schedule::Warmup { steps: 4, start_factor: 0.5, then: Box::new(Schedule::cosine()) }.over(10);
    assert_eq!(warm.learning_rate(1.0, 4), 1.0);
    assert!((warm.learning_rate(1.0, 7) - 0.5).abs() < 1e-12 && warm.learning_rate(1.0, 10).abs() < 1e-12);
    let peak = Schedule::one_cycle().over(100);
    let rates: Vec<f64> = (0..100).map(|step| peak.learning_rate(0.5, step)).collect();
    assert!(rates.iter().all(|&rate| rate <= 0.5 + 1e-12) && rates.iter().any(|&rate| rate > 0.49));
    assert!(rates[99] < 1e-4, "{}", rates[99]);
}

#[test]
fn plateaus_are_those_of_keras() {
    let observe = |schedule: &Schedule, values: &[f64]| -> Vec<f64> {
        let mut plateau: Plateau = schedule.plateau(1.0).unwrap();
        values.iter().map(|&v| plateau.observe(v)).collect()
    };
    let schedule = |cooldown, min_lr| Schedule::ReduceOnPlateau {
        factor: 0.5,
        patience: 2,
        min_delta: 0.1,
        cooldown,
        min_lr,
        mode: Default::default(),
    };
    let flat = [1.0; 8];
    assert_eq!(observe(&schedule(0, 0.0), &flat), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]);
    assert_eq!(observe(&schedule(0, 0.3), &flat), [1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]);
    // in a cooldown of two epochs only the second counts again, as in Keras
    assert_eq!(observe(&schedule(2, 0.0), &flat), [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]);
    // progress of no more than min_delta is none; a NaN is none
    assert_eq!(observe(&schedule(0, 0.0), &[1.0, 0.95, 0.85, 0.8, f64::NAN]), [1.0, 1.0, 1.0, 1.0, 0.5]);
}

#[test]
fn schedules_stay_finite_at_their_edges() {
    let one_cycle = |total, pct_start| Schedule::OneCycle {
        total,
        max_lr: Some(0.5),
        pct_start,
        div_factor: 25.0,
        final_div_factor: 1e4,
    };
    for (total, pct_start) in [(1, 0.0), (1, 1.0), (2, 0.5), (10, 0.1), (10, 0.0), (10, 1.0)] {
        for step in [0, 1, 5, 9, 10, 11, 1_000_000] {
            let rate = one_cycle(total, pct_start).learning_rate(0.1, step);
            assert!((0.0..=0.5).contains(&rate), "{total} {pct_start} at {step}: {rate}");
        }
    }
    let warm = Schedule::Warmup {
        steps: 4,
        start_factor: 0.0,
        then: Box::new(Schedule::Exponential { gamma: 0.5 }),
    };
    let rates: Vec<f64> = (0..7).map(|s| warm.learning_rate(1.0, s)).collect();
    assert_eq!(rates, [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.25]);
    assert_eq!(Schedule::Exponential { gamma: 0.9 }.learning_rate(1.0, u64::MAX), 0.0);
    assert!((Schedule::Cosine { total: 10, minimum: 0.0 }.learning_rate(1.0, 30)).abs() < 1e-12);
    assert_eq!(Schedule::cosine().learning_rate(1.0, 7), 1.0, "of no fit, which has no end");
}

fn xor_recipe(optimizer: &str) -> Result<Recipe, String> {
    let text = Recipe::builtin_text("xor").unwrap();
    let start = text.find("[optimizer]").unwrap();
    let end = start + text[start..].find("\n[[layers").unwrap();
    let text = format!("{}{optimizer}\n{}", &text[..start], &text[end..]);
    Recipe::parse(&text, "my.toml").map_err(|e| e.to_string())
}

#[test]
fn recipes_name_every_optimizer_and_schedule() {
    for name in Optimizer::NAMES {
        let recipe = xor_recipe(&format!("[optimizer]\ntype = \"{name}\"\nlr = 0.5")).unwrap();
        assert_eq!(recipe.optimizer, Optimizer::named(name).unwrap().with_learning_rate(0.5));
        assert!(recipe.schedule.is_none());
        // run.json writes what a recipe can say again
        let json = serde_json::to_value(&recipe.optimizer).unwrap();
        assert_eq!(serde_json::from_value::<Optimizer>(json).unwrap(), recipe.optimizer);
    }
    let full = "[optimizer]\ntype = \"rmsprop\"\nlearning_rate = 0.01\nrho = 0.5\nepsilon = 1e-3\ncentered = true\n\
                global_clipnorm = 2\nno_decay_on_bias_and_norm = true\n[[optimizer.groups]]\n\
                pattern = \"dense1.*\"\nlr_factor = 0.5\n[schedule]\ntype = \"warmup\"\nsteps = 3\nunit = \"epoch\"\n\
                [schedule.then]\ntype = \"cosine\"\ntotal = 10";
    let recipe = xor_recipe(full).unwrap();
    let Rule::Rmsprop(rmsprop) = recipe.optimizer.rule else { panic!("{:?}", recipe.optimizer) };
    assert!(rmsprop.alpha == 0.5 && rmsprop.eps == 1e-3 && rmsprop.centered);
    assert_eq!(recipe.optimizer.clip, Some(Clip::GlobalNorm(2.0)));
    assert_eq!(recipe.optimizer.groups.len(), 2);
    let json = serde_json::to_value(&recipe.optimizer).unwrap();
    assert_eq!(serde_json::from_value::<Optimizer>(json).unwrap(), recipe.optimizer);
    let schedule = recipe.schedule.unwrap();
    assert_eq!(schedule.unit, Unit::Epoch);
    let json = serde_json::to_value(&schedule).unwrap();
    assert_eq!(serde_json::from_value::<Scheduled>(json).unwrap(), schedule);
    for name in Schedule::NAMES {
        let settings = match name {
            "step" => "step_size = 3",
            "exponential" => "gamma = 0.5",
            "cosine" | "one_cycle" | "polynomial" => "total = 3",
            "warmup" => "steps = 3",
            _ => "",
        };
        let text = format!("[optimizer]\ntype = \"sgd\"\n[schedule]\ntype = \"{name}\"\n{settings}");
        xor_recipe(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn recipes_refuse_what_no_optimizer_takes() {
    for (settings, want) in [
        ("type = \"sgd\"\nbeta1 = 0.5", "unknown field `beta1`"),
        ("type = \"adamw\"\ndecoupled = false", "unknown field `decoupled`"),
        ("type = \"sgdd\"", "unknown variant `sgdd`"),
        ("lr = 1", "missing field `type`"),
        ("type = \"rmsprop\"\nalpha = 1.0", "alpha must be in [0, 1), is 1"),
        ("type = \"adagrad\"\ninitial = -1", "initial must be a finite number of at least 0, is -1"),
        ("type = \"adadelta\"\neps = 0", "eps must be a finite number above 0, is 0"),
        ("type = \"lion\"\nweight_decay = -1", "weight_decay must be a finite number of at least 0, is -1"),
        (
            "type = \"nadam\"\nmomentum_decay = nan",
            "momentum_decay must be a finite number of at least 0, is NaN",
        ),
        ("type = \"sgd\"\nnesterov = true", "momentum must be above 0 with nesterov"),
        ("type = \"sgd\"\nclip_norm = 0", "clip_norm must be a finite number above 0, is 0"),
        ("type = \"sgd\"\nclip_norm = 1\nclipvalue = 1", "exclude each other"),
        ("type = \"sgd\"\nclip_norm = \"one\"", "expected a number"),
        ("type = \"sgd\"\n[[optimizer.groups]]\npatern = \"*\"", "unknown field `patern`"),
        ("type = \"sgd\"\n[[optimizer.groups]]\nlr_factor = -1", "lr_factor of group \"*\" must be a finite"),
        ("type = \"sgd\"\n[[optimizer.groups]]\nlr_factor = 1\nfrozen = true", "left out where it is frozen"),
        ("type = \"sgd\"\n[schedule]\ntype = \"cosine\"\ntotal = 1\nunit = \"day\"", "unknown variant `day`"),
        ("type = \"sgd\"\n[schedule]\ntype = \"cosine\"\ntotal = 1\ngamma = 1", "unknown field `gamma`"),
        ("type = \"sgd\"\n[schedule]\ntype = \"constant\"\ngamma = 1", "unknown field `gamma`"),
        (
            "type = \"sgd\"\n[schedule]\ntype = \"exponential\"\ngamma = 0",
            "gamma must be a finite number above 0",
        ),
        ("type = \"sgd\"\n[schedule]\ntype = \"one_cycle\"\ntotal = 9\npct_start = 2", "in [0, 1], is 2"),
        ("type = \"sgd\"\n[schedule]\ntype = \"reduce_on_plateau\"\nfactor = 1", "between 0 and 1, is 1"),
        (
            "type = \"sgd\"\n[schedule]\ntype = \"warmup\"\nsteps = 1\n[schedule.then]\ntype = \"step\"\nstep_size = 0",
            "step_size must be at least 1, is 0",
        ),
    ] {
        let message = xor_recipe(&format!("[optimizer]\n{settings}")).unwrap_err();
        assert!(message.contains(want), "{settings}: {message}");
        assert!(message.starts_with("my.toml, line "), "{message}");
    }
    // what only shows where the network is known
    let recipe =
        xor_recipe("[optimizer]\ntype = \"sgd\"\n[[optimizer.groups]]\npattern = \"nothing.*\"").unwrap();
    let message = recipe.trainer(&Device::cpu(), &[], 1).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("matches no parameter"), "{message}");
    let max = "[optimizer]\ntype = \"sgd\"\n[schedule]\ntype = \"reduce_on_plateau\"\nmode = \"max\"";
    let recipe = xor_recipe(max).unwrap();
    let data = recipe.dataset(&DataDir::from_env()).unwrap();
    let mut trainer = recipe.trainer(&Device::cpu(), &[], 1).unwrap();
    let message = trainer.fit(&data.train, Fit::default()).unwrap_err().to_string();
    assert!(message.contains("a regression has none"), "{message}");
}

/// `kiln verify` holds for every rule, clipped and grouped.
#[test]
fn verification_passes_for_every_rule() {
    let device = Device::cpu();
    for name in Optimizer::NAMES {
        for clip in ["", "clip_value = 0.01", "clip_norm = 0.01", "global_clip_norm = 0.01"] {
            let text = format!(
                "[optimizer]\ntype = \"{name}\"\n{clip}\n[[optimizer.groups]]\nfrozen = true\n\
                 one_dimensional = true\n[schedule]\ntype = \"exponential\"\ngamma = 0.5"
            );
            let found = kiln::nn::verify(&xor_recipe(&text).unwrap(), &device, 4, 3, 1).unwrap();
            for launch in &found.launches {
                assert!(launch.passed, "{name} {clip}: {launch}");
            }
            for tensor in &found.tensors {
                assert!(tensor.passed, "{name} {clip}: {tensor:?}");
            }
        }
    }
}
