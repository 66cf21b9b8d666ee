// w -= lr ratio direction, where ratio = |w| / |direction| of the element's parameter, and 1 where either norm is 0
//
// w and direction are [LEN], hyper [HYPER_ROWS, 4] with lr in column 0, the clock [8], group_settings [blocks, 2]
// (lib/group.wgsl): a factor of lr; weight_norms and direction_norms [SEGMENTS], block_segments [blocks], the parameter
// of each block. Each invocation updates PER_INVOCATION elements.
//
// Source: You, Li, Reddi and others (2020), algorithm 2.

@group(0) @binding(0) var<storage, read_write> w: array<f32>;
@group(0) @binding(1) var<storage, read> direction: array<f32>;
@group(0) @binding(2) var<storage, read> hyper: array<f32>;
@group(0) @binding(3) var<storage, read> clock: array<u32>;
@group(0) @binding(4) var<storage, read> group_settings: array<f32>;
@group(0) @binding(5) var<storage, read> weight_norms: array<f32>;
@group(0) @binding(6) var<storage, read> direction_norms: array<f32>;
@group(0) @binding(7) var<storage, read> block_segments: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn lamb_apply(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lr = hyper[hyper_row(clock[1])];
    let first = first_element(group, local);
    for (var item = 0u; item < PER_INVOCATION; item++) {
        let i = first + item * WORKGROUP_SIZE;
        if (i < LEN && lr_factor(i) != 0.0) {
            let segment = min(block_segments[i / 64u], SEGMENTS - 1u);
            let weight_norm = weight_norms[segment];
            let direction_norm = direction_norms[segment];
            var ratio = 1.0;
            if (weight_norm > 0.0 && direction_norm > 0.0) { ratio = weight_norm / direction_norm; }
            w[i] -= lr * lr_factor(i) * ratio * direction[i];
        }
    }
}
