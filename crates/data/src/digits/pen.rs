//! Drawing strokes with a round nib, anti-aliased.

/// What a stroke is drawn with. Lengths in pixels.
pub(super) struct Nib {
    /// Half the width of the line.
    pub(super) radius: f32,
    /// Width of the edge from full ink to none.
    pub(super) softness: f32,
    /// By which part of itself the radius grows from the start of a stroke to its end; may be negative.
    pub(super) swell: f32,
}

/// Ink on paper, row by row, from 0 to 1.
pub(super) struct Ink {
    coverage: Vec<f32>,
    width: usize,
    height: usize,
}

impl Ink {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { coverage: vec![0.0; width * height], width, height }
    }

    pub(super) fn coverage(&self) -> &[f32] {
        &self.coverage
    }

    /// Draws a poly-line: the ink of a pixel follows from the distance of its centre to the nearest
    /// segment, and where strokes overlap the darker one stays.
    pub(super) fn draw(&mut self, points: &[[f32; 2]], nib: &Nib) {
        let segments = points.len().saturating_sub(1).max(1) as f32;
        for (i, pair) in points.windows(2).enumerate() {
            let along = (i as f32 + 0.5) / segments - 0.5;
            self.segment(pair[0], pair[1], nib.radius * (1.0 + nib.swell * along), nib.softness);
        }
    }

    fn segment(&mut self, a: [f32; 2], b: [f32; 2], radius: f32, softness: f32) {
        let reach = radius + softness;
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length2 = (dx * dx + dy * dy).max(1e-12);
        // `as` saturates at 0.
        let range = |p: f32, q: f32, size: usize| {
            (p.min(q) - reach) as usize..((p.max(q) + reach + 1.0) as usize).min(size)
        };
        for y in range(a[1], b[1], self.height) {
            for x in range(a[0], b[0], self.width) {
                let (px, py) = (x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]);
                let t = ((px * dx + py * dy) / length2).clamp(0.0, 1.0);
                let (ex, ey) = (px - t * dx, py - t * dy);
                let distance = (ex * ex + ey * ey).sqrt();
                let ink = ((radius - distance) / softness + 0.5).clamp(0.0, 1.0);
                let pixel = &mut self.coverage[y * self.width + x];
                *pixel = pixel.max(ink);
            }
        }
    }
}
