// By what the sum over a window is divided.

// Positions of window (oh, ow) inside the input; with COUNT_INCLUDE_PAD, inside the padded input, as PyTorch
// counts.
fn window_count(oh: u32, ow: u32) -> f32 {
    let top = oh * STRIDE_H; // counted from the padding's edge
    let left = ow * STRIDE_W;
    if (COUNT_INCLUDE_PAD) {
        let bottom = min(top + KERNEL_H, IN_H + 2u * PAD_TOP);
        let right = min(left + KERNEL_W, IN_W + 2u * PAD_LEFT);
        return f32((bottom - top) * (right - left));
    }
    let bottom = min(top + KERNEL_H, IN_H + PAD_TOP);
    let right = min(left + KERNEL_W, IN_W + PAD_LEFT);
    return f32((bottom - max(top, PAD_TOP)) * (right - max(left, PAD_LEFT)));
}
