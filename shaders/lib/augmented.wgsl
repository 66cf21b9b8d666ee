// The pictures of a batch, changed as their draws say; see kiln_kernel::AugmentRanges::draw for the words of a row. The
// file that follows says what element i of the data set is: element(i).

@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> clock: array<u32>;
@group(0) @binding(3) var<storage, read> draws: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const PIXELS: u32 = HEIGHT * WIDTH;

fn drawn(r: u32, k: u32) -> i32 { return bitcast<i32>(draws[r * 16u + k]); }

// The place along an axis that is seen at i. The clamp holds it to the picture whatever i is.
fn folded(i: i32, size: i32) -> u32 {
    var at = i;
    if (BORDER == 1u) {
        at = i % (2 * size);
        at += select(0, 2 * size, at < 0);
        at = select(at, 2 * size - 1 - at, at >= size);
    }
    return u32(clamp(at, 0, size - 1));
}

// A pixel of the plane of the data set that begins at element `plane`.
fn pixel(plane: u32, at: vec2<i32>) -> f32 {
    let size = vec2<i32>(i32(WIDTH), i32(HEIGHT));
    let value = element(plane + folded(at.y, size.y) * WIDTH + folded(at.x, size.x));
    return select(value, FILL, BORDER == 2u && (any(at < vec2<i32>(0)) || any(at >= size)));
}

// The channels at a pixel of row r's picture.
fn picture(r: u32, at: vec2<u32>) -> array<f32, PICTURE_CHANNELS> {
    var values = array<f32, PICTURE_CHANNELS>();
    let first = data_row(order[order_position(clock[2], r)]) * (PICTURE_CHANNELS * PIXELS);
    // twice the distance from the middle, so that it is whole
    let d = 2 * vec2<i32>(at) - vec2<i32>(i32(WIDTH) - 1, i32(HEIGHT) - 1);
    let seen = vec2<i32>(
        drawn(r, 0u) * d.x + drawn(r, 1u) * d.y + drawn(r, 4u),
        drawn(r, 2u) * d.x + drawn(r, 3u) * d.y + drawn(r, 5u),
    );
    if (BILINEAR) {
        let corner = seen >> vec2<u32>(15u);
        let part = vec2<f32>(seen & vec2<i32>(32767)) * (1.0 / 32768.0);
        for (var c = 0u; c < PICTURE_CHANNELS; c++) {
            let plane = first + c * PIXELS;
            let above = mix(pixel(plane, corner), pixel(plane, corner + vec2<i32>(1, 0)), part.x);
            let below = mix(pixel(plane, corner + vec2<i32>(0, 1)), pixel(plane, corner + vec2<i32>(1, 1)), part.x);
            values[c] = mix(above, below, part.y);
        }
    } else {
        let nearest = (seen + 16384) >> vec2<u32>(15u);
        for (var c = 0u; c < PICTURE_CHANNELS; c++) {
            values[c] = pixel(first + c * PIXELS, nearest);
        }
    }
    if (COLOUR) {
        // brightness is a factor, contrast one about the middle of the range
        let factor = f32(drawn(r, 6u)) * (1.0 / 16384.0);
        let summand = f32(16384 - drawn(r, 7u)) * (RANGE / 32768.0);
        for (var c = 0u; c < PICTURE_CHANNELS; c++) {
            values[c] = clamp(values[c] * factor + summand, 0.0, RANGE);
        }
    }
    if (HUE) {
        // saturation is a factor of the distance from grey, hue a turn about the line of greys
        let rgb = vec3<f32>(values[0], values[1 % PICTURE_CHANNELS], values[2 % PICTURE_CHANNELS]);
        let luma = dot(rgb, vec3<f32>(0.2126, 0.7152, 0.0722));
        let vivid = luma + (rgb - luma) * (f32(drawn(r, 8u)) * (1.0 / 16384.0));
        let grey = dot(vivid, vec3<f32>(1.0 / 3.0));
        let across = (vivid.zxy - vivid.yzx) * 0.57735027;
        let turn = vec2<f32>(f32(drawn(r, 9u)), f32(drawn(r, 10u))) * (1.0 / 16384.0);
        let turned = clamp(grey + (vivid - grey) * turn.x + across * turn.y, vec3<f32>(0.0), vec3<f32>(RANGE));
        for (var c = 0u; c < PICTURE_CHANNELS; c++) { values[c] = turned[c % 3u]; }
    }
    if (CUTOUT > 0u) {
        let from_corner = vec2<i32>(at) - vec2<i32>(drawn(r, 12u), drawn(r, 11u));
        if (all(from_corner >= vec2<i32>(0)) && all(from_corner < vec2<i32>(i32(CUTOUT)))) {
            for (var c = 0u; c < PICTURE_CHANNELS; c++) { values[c] = COVER; }
        }
    }
    return values;
}

// All channels of pixel i of the batch.
fn write_pixel(i: u32) {
    var scale = SCALE;
    var shift = SHIFT;
    let r = i / PIXELS;
    let at = vec2<u32>(i % WIDTH, i % PIXELS / WIDTH);
    var values = picture(r, at);
    if (MIXUP) {
        var others = picture(ROWS - 1u - r, at);
        let own = f32(drawn(r, 13u)) * (1.0 / 65536.0);
        for (var c = 0u; c < PICTURE_CHANNELS; c++) { values[c] = mix(others[c], values[c], own); }
    }
    for (var c = 0u; c < PICTURE_CHANNELS; c++) {
        let k = min(c, CHANNELS - 1u);
        y[(r * PICTURE_CHANNELS + c) * PIXELS + i % PIXELS] = values[c] * scale[k] + shift[k];
    }
}
