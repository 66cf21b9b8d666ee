// running_q[i] += MOMENTUMq * (value_q[i] - running_q[i])
//
// One to four pairs; running q and value q are [LENq]. Each invocation updates element i of each pair that has one.

@group(0) @binding(0) var<storage, read_write> running0: array<f32>;
@group(0) @binding(1) var<storage, read> value0: array<f32>;
@group(0) @binding(2) var<storage, read_write> running1: array<f32>;
@group(0) @binding(3) var<storage, read> value1: array<f32>;
@group(0) @binding(4) var<storage, read_write> running2: array<f32>;
@group(0) @binding(5) var<storage, read> value2: array<f32>;
@group(0) @binding(6) var<storage, read_write> running3: array<f32>;
@group(0) @binding(7) var<storage, read> value3: array<f32>;

fn update0(i: u32) {
    if (i < LEN0) { running0[i] += MOMENTUM0 * (value0[i] - running0[i]); }
}

fn update1(i: u32) {
    if (i < LEN1) { running1[i] += MOMENTUM1 * (value1[i] - running1[i]); }
}

fn update2(i: u32) {
    if (i < LEN2) { running2[i] += MOMENTUM2 * (value2[i] - running2[i]); }
}

fn update3(i: u32) {
    if (i < LEN3) { running3[i] += MOMENTUM3 * (value3[i] - running3[i]); }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn moving_average1(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = element_number(group, local);
    update0(i);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn moving_average2(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = element_number(group, local);
    update0(i);
    update1(i);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn moving_average3(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = element_number(group, local);
    update0(i);
    update1(i);
    update2(i);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn moving_average4(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = element_number(group, local);
    update0(i);
    update1(i);
    update2(i);
    update3(i);
}
