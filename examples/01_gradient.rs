//! Tensors and a gradient by hand: record, differentiate, plan, run.
//!
//! `cargo run --release --example 01_gradient`

use std::collections::HashMap;

use kiln::{kernel::HostRef, prelude::*};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;

    // f(x) = Σ tanh(x)², and its gradient 2 tanh(x) (1 - tanh(x)²)
    let mut g = Graph::new();
    let x = g.input("x", [5])?;
    let y = g.tanh(x)?;
    let squares = g.square(y)?;
    let f = g.sum(squares, &[0], false)?;
    let df = g.gradients(f, &[x])?[0];

    let store = ParameterStore::new(&**device.backend(), &[], &[])?;
    let request = Request { fetch: vec![("f".into(), f), ("df".into(), df)], ..Request::default() };
    let plan = Plan::new(&g, store.segments(), &request)?;
    println!("the plan on {device}:\n{plan}");

    let session = Session::new(device.backend().clone(), &store, &plan, &HashMap::new())?;
    let points = [-2.0, -0.5, 0.0, 0.5, 2.0];
    session.write("x", HostRef::F32(&points))?;
    session.run(1)?;
    println!("f = {}", session.read("f")?.into_f32()[0]);
    for (x, df) in points.iter().zip(session.read("df")?.into_f32()) {
        println!("df/dx at {x:>4} = {df:>9.6}");
    }
    Ok(())
}
