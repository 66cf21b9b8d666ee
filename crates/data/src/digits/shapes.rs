//! The digits as strokes in the unit square, x to the right and y downwards, in several styles each.

use super::Dice;

/// One stroke of a style.
enum Stroke {
    /// Straight lines from point to point.
    Lines(&'static [[f32; 2]]),
    /// A smooth curve through the points.
    Curve(&'static [[f32; 2]]),
    /// A smooth curve through the points and back to the first.
    Loop(&'static [[f32; 2]]),
}

use Stroke::{Curve, Lines, Loop};

/// A style, and how often it is drawn relative to the other styles of its digit.
type Style = (u32, &'static [Stroke]);

const ZERO: &[Style] = &[
    (
        4,
        &[Loop(&[
            [0.5, 0.0],
            [0.16, 0.16],
            [0.04, 0.5],
            [0.16, 0.85],
            [0.5, 1.0],
            [0.84, 0.85],
            [0.96, 0.5],
            [0.84, 0.16],
        ])],
    ),
    (
        2,
        &[Curve(&[
            [0.62, 0.04],
            [0.25, 0.1],
            [0.05, 0.48],
            [0.2, 0.9],
            [0.55, 0.99],
            [0.86, 0.8],
            [0.93, 0.4],
            [0.75, 0.08],
            [0.42, 0.02],
        ])],
    ),
    (
        1,
        &[Curve(&[
            [0.7, 0.12],
            [0.4, 0.02],
            [0.12, 0.3],
            [0.1, 0.7],
            [0.4, 1.0],
            [0.8, 0.8],
            [0.9, 0.4],
            [0.6, 0.06],
        ])],
    ),
];

const ONE: &[Style] = &[
    (3, &[Lines(&[[0.5, 0.0], [0.5, 1.0]])]),
    (3, &[Lines(&[[0.22, 0.24], [0.55, 0.0], [0.55, 1.0]])]),
    (1, &[Lines(&[[0.2, 0.22], [0.5, 0.0], [0.5, 1.0]]), Lines(&[[0.15, 1.0], [0.85, 1.0]])]),
    (1, &[Curve(&[[0.3, 0.22], [0.45, 0.12], [0.55, 0.0], [0.54, 0.4], [0.5, 1.0]])]),
];

const TWO: &[Style] = &[
    (
        3,
        &[
            Curve(&[
                [0.08, 0.26],
                [0.28, 0.03],
                [0.64, 0.01],
                [0.88, 0.22],
                [0.74, 0.5],
                [0.38, 0.78],
                [0.06, 1.0],
            ]),
            Lines(&[[0.06, 1.0], [0.94, 0.98]]),
        ],
    ),
    (
        2,
        &[Curve(&[
            [0.1, 0.2],
            [0.4, 0.0],
            [0.8, 0.14],
            [0.78, 0.42],
            [0.46, 0.76],
            [0.16, 0.97],
            [0.06, 0.86],
            [0.24, 0.78],
            [0.56, 0.92],
            [0.96, 0.96],
        ])],
    ),
    (
        1,
        &[Curve(&[
            [0.14, 0.1],
            [0.5, 0.0],
            [0.84, 0.16],
            [0.72, 0.48],
            [0.2, 0.88],
            [0.1, 0.98],
            [0.5, 0.94],
            [0.92, 1.0],
        ])],
    ),
];

const THREE: &[Style] = &[
    (
        3,
        &[
            Curve(&[[0.12, 0.14], [0.42, 0.0], [0.8, 0.1], [0.8, 0.34], [0.4, 0.47]]),
            Curve(&[[0.4, 0.47], [0.8, 0.55], [0.92, 0.78], [0.6, 1.0], [0.08, 0.9]]),
        ],
    ),
    (
        1,
        &[
            Lines(&[[0.1, 0.02], [0.86, 0.02], [0.42, 0.4]]),
            Curve(&[[0.42, 0.4], [0.8, 0.5], [0.9, 0.78], [0.55, 1.0], [0.08, 0.88]]),
        ],
    ),
    (
        2,
        &[Curve(&[
            [0.1, 0.06],
            [0.6, 0.0],
            [0.86, 0.2],
            [0.6, 0.42],
            [0.5, 0.5],
            [0.7, 0.54],
            [0.92, 0.74],
            [0.6, 0.98],
            [0.1, 0.96],
        ])],
    ),
];

const FOUR: &[Style] = &[
    (3, &[Lines(&[[0.2, 0.02], [0.08, 0.56], [0.92, 0.56]]), Lines(&[[0.76, 0.06], [0.7, 1.0]])]),
    (2, &[Lines(&[[0.66, 1.0], [0.66, 0.0], [0.04, 0.66], [0.96, 0.66]])]),
    (
        2,
        &[
            Curve(&[[0.16, 0.02], [0.08, 0.34], [0.2, 0.54], [0.5, 0.54], [0.8, 0.4]]),
            Lines(&[[0.86, 0.0], [0.78, 1.0]]),
        ],
    ),
    (
        1,
        &[
            Curve(&[[0.34, 0.0], [0.12, 0.44], [0.22, 0.6], [0.56, 0.58], [0.96, 0.54]]),
            Lines(&[[0.74, 0.26], [0.66, 1.0]]),
        ],
    ),
];

const FIVE: &[Style] = &[
    (
        3,
        &[
            Lines(&[[0.88, 0.02], [0.26, 0.02], [0.18, 0.46]]),
            Curve(&[[0.18, 0.46], [0.5, 0.36], [0.88, 0.54], [0.84, 0.84], [0.46, 1.0], [0.06, 0.9]]),
        ],
    ),
    (
        2,
        &[Curve(&[
            [0.88, 0.04],
            [0.4, 0.04],
            [0.22, 0.22],
            [0.28, 0.4],
            [0.6, 0.46],
            [0.9, 0.68],
            [0.62, 0.98],
            [0.08, 0.94],
        ])],
    ),
    (
        1,
        &[
            Curve(&[
                [0.22, 0.06],
                [0.2, 0.3],
                [0.18, 0.46],
                [0.54, 0.4],
                [0.88, 0.6],
                [0.7, 0.94],
                [0.1, 0.94],
            ]),
            Lines(&[[0.22, 0.06], [0.9, 0.0]]),
        ],
    ),
];

const SIX: &[Style] = &[
    (
        3,
        &[Curve(&[
            [0.72, 0.02],
            [0.36, 0.18],
            [0.1, 0.56],
            [0.18, 0.9],
            [0.54, 1.0],
            [0.88, 0.82],
            [0.74, 0.56],
            [0.36, 0.54],
            [0.12, 0.74],
        ])],
    ),
    (
        2,
        &[Curve(&[
            [0.56, 0.0],
            [0.26, 0.36],
            [0.1, 0.74],
            [0.34, 1.0],
            [0.76, 0.96],
            [0.88, 0.72],
            [0.58, 0.54],
            [0.18, 0.7],
        ])],
    ),
    (
        1,
        &[Curve(&[
            [0.86, 0.1],
            [0.5, 0.04],
            [0.14, 0.36],
            [0.08, 0.74],
            [0.4, 1.0],
            [0.8, 0.86],
            [0.72, 0.6],
            [0.4, 0.56],
            [0.14, 0.76],
        ])],
    ),
];

const SEVEN: &[Style] = &[
    (3, &[Lines(&[[0.06, 0.03], [0.92, 0.03], [0.4, 1.0]])]),
    (2, &[Lines(&[[0.06, 0.03], [0.92, 0.03], [0.42, 1.0]]), Lines(&[[0.3, 0.5], [0.84, 0.48]])]),
    (
        2,
        &[
            Lines(&[[0.08, 0.16], [0.1, 0.04]]),
            Lines(&[[0.1, 0.04], [0.92, 0.02]]),
            Curve(&[[0.92, 0.02], [0.62, 0.42], [0.46, 1.0]]),
        ],
    ),
    (1, &[Curve(&[[0.06, 0.1], [0.4, 0.06], [0.86, 0.04], [0.84, 0.2], [0.6, 0.6], [0.5, 1.0]])]),
];

const EIGHT: &[Style] = &[
    (
        3,
        &[Loop(&[
            [0.5, 0.48],
            [0.2, 0.3],
            [0.24, 0.06],
            [0.54, 0.0],
            [0.82, 0.12],
            [0.76, 0.32],
            [0.5, 0.48],
            [0.16, 0.68],
            [0.14, 0.9],
            [0.5, 1.0],
            [0.86, 0.9],
            [0.84, 0.68],
        ])],
    ),
    (
        2,
        &[
            Loop(&[[0.5, 0.0], [0.24, 0.1], [0.24, 0.36], [0.5, 0.46], [0.76, 0.36], [0.76, 0.1]]),
            Loop(&[[0.5, 0.46], [0.16, 0.58], [0.14, 0.88], [0.5, 1.0], [0.86, 0.88], [0.84, 0.58]]),
        ],
    ),
    (
        2,
        &[Curve(&[
            [0.84, 0.12],
            [0.5, 0.0],
            [0.2, 0.16],
            [0.34, 0.4],
            [0.7, 0.6],
            [0.82, 0.86],
            [0.48, 1.0],
            [0.16, 0.86],
            [0.36, 0.58],
            [0.74, 0.36],
            [0.86, 0.1],
        ])],
    ),
];

const NINE: &[Style] = &[
    (
        3,
        &[
            Curve(&[
                [0.86, 0.2],
                [0.56, 0.0],
                [0.18, 0.12],
                [0.14, 0.38],
                [0.42, 0.52],
                [0.76, 0.4],
                [0.86, 0.2],
            ]),
            Curve(&[[0.86, 0.2], [0.84, 0.6], [0.72, 1.0]]),
        ],
    ),
    (
        2,
        &[
            Loop(&[[0.5, 0.0], [0.16, 0.14], [0.16, 0.4], [0.48, 0.52], [0.8, 0.4], [0.82, 0.14]]),
            Curve(&[[0.84, 0.18], [0.86, 0.66], [0.58, 0.98], [0.14, 0.92]]),
        ],
    ),
    (
        2,
        &[Curve(&[
            [0.8, 0.1],
            [0.46, 0.02],
            [0.14, 0.24],
            [0.3, 0.5],
            [0.68, 0.42],
            [0.84, 0.08],
            [0.8, 0.5],
            [0.76, 1.0],
        ])],
    ),
];

const DIGITS: [&[Style]; 10] = [ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, NINE];

/// Line pieces that a curve is drawn with between two of its points.
const PIECES: usize = 5;

/// A style of the digit as poly-lines, bent by a random field, its points each a little off.
pub(super) fn strokes(digit: u32, dice: &mut Dice) -> Vec<Vec<[f32; 2]>> {
    let styles = DIGITS[digit as usize % DIGITS.len()];
    let total: u32 = styles.iter().map(|(weight, _)| weight).sum();
    let mut pick = dice.below(total);
    let mut style: &[Stroke] = &[];
    for (weight, strokes) in styles {
        style = strokes;
        if pick < *weight {
            break;
        }
        pick -= weight;
    }
    let field = Field::new(dice);
    let mut off = |points: &[[f32; 2]]| -> Vec<[f32; 2]> {
        points
            .iter()
            .map(|&p| {
                let [x, y] = field.bend(p);
                [x + 0.018 * dice.bell(), y + 0.018 * dice.bell()]
            })
            .collect()
    };
    style
        .iter()
        .map(|stroke| match stroke {
            Lines(points) => off(points),
            Curve(points) => smooth(&off(points), false),
            Loop(points) => smooth(&off(points), true),
        })
        .collect()
}

/// A smooth random displacement of the unit square: neighbouring points move alike, so that strokes that
/// meet still do.
struct Field {
    nodes: [[[f32; 2]; 4]; 4],
}

impl Field {
    fn new(dice: &mut Dice) -> Self {
        let amount = dice.between(0.03, 0.085);
        let mut nodes = [[[0.0; 2]; 4]; 4];
        for node in nodes.iter_mut().flatten() {
            *node = [amount * dice.bell(), amount * dice.bell()];
        }
        Self { nodes }
    }

    /// Bilinear between the nodes of a 4 x 4 grid.
    fn bend(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let cell = |v: f32| {
            let v = v.clamp(0.0, 1.0) * 3.0;
            let i = (v as usize).min(2);
            (i, v - i as f32)
        };
        let ((i, fx), (j, fy)) = (cell(x), cell(y));
        let mix = |axis: usize| {
            let row = |j: usize| self.nodes[j][i][axis] * (1.0 - fx) + self.nodes[j][i + 1][axis] * fx;
            row(j) * (1.0 - fy) + row(j + 1) * fy
        };
        [x + mix(0), y + mix(1)]
    }
}

/// Catmull and Rom's spline through the points.
fn smooth(points: &[[f32; 2]], closed: bool) -> Vec<[f32; 2]> {
    let n = points.len();
    let at = |i: isize| {
        if closed {
            points[i.rem_euclid(n as isize) as usize]
        } else {
            points[i.clamp(0, n as isize - 1) as usize]
        }
    };
    let spans = if closed { n } else { n - 1 };
    let mut line = Vec::with_capacity(spans * PIECES + 1);
    for span in 0..spans as isize {
        let [p0, p1, p2, p3] = [at(span - 1), at(span), at(span + 1), at(span + 2)];
        for piece in 0..PIECES {
            let t = piece as f32 / PIECES as f32;
            line.push([0, 1].map(|k| {
                let (a, b, c, d) = (p0[k], p1[k], p2[k], p3[k]);
                0.5 * (2.0 * b
                    + (c - a) * t
                    + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
                    + (3.0 * b - a - 3.0 * c + d) * t * t * t)
            }));
        }
    }
    line.push(at(spans as isize));
    line
}
