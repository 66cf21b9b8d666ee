// draws[r, k] = word k of what is drawn for row r, as bits of an i32; shares[r] = word 13 / 65536
//
// The words are listed at kiln_kernel::AugmentRanges::draw, whose arithmetic this repeats: whole numbers only, so that
// every device draws the same to the bit. draws is [ROWS, 16], shares [ROWS], the clock [8]. Each invocation writes a row.

@group(0) @binding(0) var<storage, read> clock: array<u32>;
@group(0) @binding(1) var<storage, read_write> draws: array<u32>;
@group(0) @binding(2) var<storage, read_write> shares: array<f32>;

// A number from -amount to amount.
fn around(word: u32, amount: u32) -> i32 {
    return bitcast<i32>(multiply_high(word, 2u * amount + 1u) - amount);
}

// Cosine and sine in 2^-14 of an angle of at most half a turn, 2^30. A step turns by atan(2^-i), to and fro.
//
// Source: Volder (1959), "The CORDIC trigonometric computing technique".
fn cos_sin(angle: i32) -> vec2<i32> {
    var turns = array<i32, 20>(
        268435456, 158466703, 83729454, 42502378, 21333666, 10677233, 5339919, 2670123, 1335082, 667543,
        333772, 166886, 83443, 41722, 20861, 10430, 5215, 2608, 1304, 652,
    );
    let quarter = 1 << 29u;
    let opposite = angle < -quarter || angle > quarter;
    var rest = angle;
    if (opposite) { rest = angle - select(-2 * quarter, 2 * quarter, angle > 0); }
    var at = vec2<i32>(163008219, 0);
    for (var i = 0u; i < 20u; i++) {
        let turned = vec2<i32>(-(at.y >> i), at.x >> i);
        if (rest >= 0) {
            at += turned;
            rest -= turns[i];
        } else {
            at -= turned;
            rest += turns[i];
        }
    }
    if (opposite) { at = -at; }
    return (at + 8192) >> vec2<u32>(14u);
}

// The share of the row itself, straight between the quantiles of its distribution.
fn share(word: u32) -> i32 {
    var quantiles = QUANTILES;
    let low = i32(quantiles[word >> 26u]);
    let high = i32(quantiles[(word >> 26u) + 1u]);
    return low + (((high - low) * i32((word >> 10u) & 0xffffu)) >> 16u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn augment_draw(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let r = element_number(group, local);
    if (r >= ROWS) { return; }
    var words = array<vec4<u32>, 4>();
    for (var b = 0u; b < 4u; b++) {
        words[b] = philox4x32(vec4<u32>(r * 4u + b, clock[0], STREAM, 0u), vec2<u32>(clock[3], clock[4]));
    }
    let rotation = cos_sin(around(words[0].x, ROTATION));
    let shear = around(words[0].w, SHEAR);
    let zoom = i32(ZOOM_FROM + multiply_high(words[1].x, ZOOM_TO - ZOOM_FROM + 1u));
    let flips = words[1].w;
    let mirror = vec2<i32>(
        select(1, -1, HORIZONTAL_FLIP && (flips >> 31u) == 1u),
        select(1, -1, VERTICAL_FLIP && ((flips >> 30u) & 1u) == 1u),
    );
    let inverse = (1 << 28u) / max(zoom, 1);
    let right = (rotation * inverse + 8192) >> vec2<u32>(14u);
    let slanted = ((rotation * shear) >> vec2<u32>(14u)) + vec2<i32>(-rotation.y, rotation.x);
    let down = (slanted * inverse + 8192) >> vec2<u32>(14u);
    let middle = vec2<i32>(i32(WIDTH) - 1, i32(HEIGHT) - 1) << vec2<u32>(14u);
    let shift = vec2<i32>(around(words[0].z, SHIFT_X), around(words[0].y, SHIFT_Y));
    let crop = vec2<i32>(around(words[1].z, CROP), around(words[1].y, CROP)) << vec2<u32>(15u);
    let origin = middle + shift + crop;
    let contrast = 16384 + around(words[2].y, CONTRAST);
    let brightness = 16384 + around(words[2].x, BRIGHTNESS);
    let hue = cos_sin(around(words[2].w, HUE));
    let half_side = i32(CUTOUT) / 2;
    let own = share(words[3].z);
    let drawn = array<i32, 16>(
        right.x * mirror.x,
        down.x * mirror.y,
        right.y * mirror.x,
        down.y * mirror.y,
        origin.x,
        origin.y,
        (contrast * brightness) >> 14u,
        contrast,
        16384 + around(words[2].z, SATURATION),
        hue.x,
        hue.y,
        i32(multiply_high(words[3].x, HEIGHT)) - half_side,
        i32(multiply_high(words[3].y, WIDTH)) - half_side,
        own,
        0,
        0,
    );
    for (var k = 0u; k < 16u; k++) { draws[r * 16u + k] = bitcast<u32>(drawn[k]); }
    shares[r] = f32(own) * (1.0 / 65536.0);
}
