// Functions of two numbers. Comparisons give 1 or 0.

fn add(a: f32, b: f32) -> f32 { return a + b; }
fn sub(a: f32, b: f32) -> f32 { return a - b; }
fn mul(a: f32, b: f32) -> f32 { return a * b; }
fn div(a: f32, b: f32) -> f32 { return a / b; }
fn maximum(a: f32, b: f32) -> f32 { return select(a, b, a < b); }
fn minimum(a: f32, b: f32) -> f32 { return select(a, b, b < a); }
fn greater(a: f32, b: f32) -> f32 { return select(0.0, 1.0, a > b); }
fn greater_equal(a: f32, b: f32) -> f32 { return select(0.0, 1.0, a >= b); }
fn equal(a: f32, b: f32) -> f32 { return select(0.0, 1.0, a == b); }
fn not_equal(a: f32, b: f32) -> f32 { return select(0.0, 1.0, a != b); }
fn mask(a: f32, b: f32) -> f32 { return select(0.0, b, a != 0.0); }
fn prelu(a: f32, b: f32) -> f32 { return select(a * b, a, a > 0.0); }
