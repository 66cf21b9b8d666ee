// The gradient of a convolution's results as it is bound.

fn dy_at(e: u32) -> f32 { return dy[e]; }
