// The sums of the rows of matmul.wgsl's left operand: [SPLITS, M], of one product.

@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

fn store_row_sum(z: u32, i: u32, sum: f32) { sums[z * M + i] = sum; }
