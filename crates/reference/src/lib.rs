//! The CPU backend: for each kernel one function of its name, over `f32` and `f64`.
//!
//! The functions do the work of the WGSL entry points of the same names (`shaders/`), over the same
//! bindings in the same order; what each computes stands in [`kiln_kernel`]'s documentation of the kernel.
//! In `f64` they are plain loops, and the ground truth that every shader is checked against. In `f32`, where
//! they train networks on machines without a GPU, the costly ones have a fast path beside the plain loop,
//! tested against it.
//!
//! Work is shared out in blocks whose bounds depend on the shapes alone, and every sum has a fixed order:
//! two runs give the same bits.

mod accumulate;
mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod advance;
mod arguments;
mod augment;
mod avg_pool2d;
mod binary;
mod clip;
mod concat;
mod conv2d;
mod conv2d_backward_input;
mod conv2d_backward_weight;
mod cpu;
mod cross_entropy;
mod custom;
mod dense_cross_entropy;
mod dispatch;
mod dropout;
mod elementwise;
mod embedding;
mod first_non_finite;
mod gather;
mod gemm;
mod gradient;
mod lamb;
mod layout;
mod lion;
mod matmul;
mod max_pool2d;
mod moments;
mod nadam;
mod one_hot;
mod pad;
mod parallel;
mod patches;
mod pool2x2;
mod random_normal;
mod real;
mod reduce;
mod rmsprop;
mod sgd;
mod simd;
mod softmax;
mod storage;
mod sum_parts;
mod tail;
mod tally;
#[cfg(test)]
mod testing;
mod unary;
mod update;
mod window;
mod winograd;
mod winograd_forward;
mod winograd_points;
mod winograd_pool;
#[cfg(test)]
mod winograd_tests;
mod winograd_weight;

pub use cpu::Cpu;
pub use real::Real;
