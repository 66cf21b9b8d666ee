// gradient *= LIMIT / (norm + EPS) where that is less than 1; clip_norm: with the norm of the element's parameter;
// clip_global_norm: with that of everything
//
// gradient is [LEN], norms [SEGMENTS], block_segments [blocks], the parameter of each block of 64 elements. Each
// invocation updates PER_INVOCATION elements.
//
// Source: PyTorch's clip_grad_norm_.

@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(1) var<storage, read> norms: array<f32>;
@group(0) @binding(2) var<storage, read> block_segments: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn clip_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            let factor = LIMIT / (norms[min(block_segments[i / 64u], SEGMENTS - 1u)] + EPS);
            if (factor < 1.0) { gradient[i] *= factor; }
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn clip_global_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let factor = LIMIT / (norms[0] + EPS);
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN) {
            if (factor < 1.0) { gradient[i] *= factor; }
        }
    }
}
